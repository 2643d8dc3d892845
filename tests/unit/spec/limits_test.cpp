#include "vmm/spec/limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/spec/problems.h"
#include "vmm/spec/describe.h"

namespace snug {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Spec spec_of(std::string_view yaml) {
  const auto outcome = parse_spec_text(yaml, "vm.yaml", "/specs");
  EXPECT_THAT(texts_of(outcome.problems), IsEmpty());
  // What is printed is read back as the same.
  const auto again = parse_spec_text(effective_spec_yaml(outcome.spec), "vm.yaml", "/other");
  EXPECT_EQ(again.spec.limits, outcome.spec.limits) << effective_spec_yaml(outcome.spec);
  return outcome.spec;
}

LimitsSpec limits_of(std::string_view yaml) { return spec_of(yaml).limits; }

constexpr auto kBeyond = MemoryLimitKind::kBeyondGuest;
constexpr auto kAll = MemoryLimitKind::kAll;

TEST(Limits, Forms) {
  EXPECT_EQ(limits_of("cpus: 1"), LimitsSpec{});
  EXPECT_EQ(limits_of("limits: {}"), LimitsSpec{});
  EXPECT_EQ(limits_of("limits: {cpu: none, memory: none, io_weight: none}"), LimitsSpec{});
  EXPECT_EQ(limits_of("limits:\n  cpu: 1.5\n  memory: +64M\n  io_weight: 100"),
            (LimitsSpec{1500, {kBeyond, 64 * kMiB}, 100}));
  EXPECT_EQ(limits_of("limits: {memory: '+64M'}").memory, (MemoryLimit{kBeyond, 64 * kMiB}));
  EXPECT_EQ(limits_of("limits: {memory: 1G}").memory, (MemoryLimit{kAll, kGiB}));
}

TEST(Limits, Processors) {
  const auto cpu = [](const std::string& text) { return limits_of("limits: {cpu: " + text + "}").cpu; };
  EXPECT_EQ(cpu("2"), 2000U);
  EXPECT_EQ(cpu("0.01"), 10U);
  EXPECT_EQ(cpu("0.125"), 125U);
  EXPECT_EQ(cpu("1.50"), 1500U);
  EXPECT_EQ(cpu("'1.5'"), 1500U);
  EXPECT_EQ(cpu("1024"), 1'024'000U);
  for (const char* wrong : {"0", "0.0", "0.009", "-1", "+1", "1.", ".5", "1.5.5", "1.2345", "01", "1e3",
                            "1024.001", "99999999999999999999", "one", "''", "1,5"})
    EXPECT_THAT(problems_in(fmt::format("limits: {{cpu: \"{}\"}}", wrong)),
                ElementsAre(HasSubstr(
                    "limits.cpu: expected a number of processors from 0.01 to 1024, as in 1.5, or 'none'")))
        << wrong;
  EXPECT_THAT(
      problems_in("limits: {cpu: 150%}"),
      ElementsAre("vm.yaml:1:15: limits.cpu: expected a number of processors from 0.01 to 1024, as in "
                  "1.5, or 'none', got '150%' (did you mean 1.5?)"));
  EXPECT_EQ(format_cpus(1), "0.001");
  EXPECT_EQ(format_cpus(100'000), "100");
}

TEST(Limits, MemoryHasRoomForSnugItself) {
  EXPECT_THAT(problems_in("limits: {memory: +8M}"),
              ElementsAre(HasSubstr("'8M' is too little; at least 16M")));
  EXPECT_THAT(problems_in("limits: {memory: 16M}"), ElementsAre(HasSubstr("at least 32M")));
  EXPECT_THAT(problems_in("limits: {memory: +64}"), ElementsAre(HasSubstr("(did you mean 64M?)")));
  EXPECT_THAT(problems_in("limits: {memory: +17409K}"), ElementsAre(HasSubstr("not a multiple of 4K")));
  EXPECT_THAT(problems_in("limits: {memory: ++64M}"), ElementsAre(HasSubstr("expected a size")));
  EXPECT_EQ(memory_max(spec_of("memory: 128M")), std::nullopt);
  EXPECT_EQ(memory_max(spec_of("{memory: 128M, limits: {memory: +16M}}")), 144 * kMiB);
  EXPECT_EQ(memory_max(spec_of("{memory: 128M, limits: {memory: 1G}}")), kGiB);
}

TEST(Limits, WeightsAndUnknownKeys) {
  EXPECT_EQ(limits_of("limits: {io_weight: 10000}").io_weight, 10'000U);
  for (const char* wrong : {"0", "10001", "default", "1.5"})
    EXPECT_THAT(problems_in(fmt::format("limits: {{io_weight: {}}}", wrong)),
                ElementsAre(HasSubstr("expected a whole number from 1 to 10000 or 'none'")))
        << wrong;
  EXPECT_THAT(problems_in("limits: {cpu_quota: 1}"), ElementsAre(HasSubstr("did you mean 'cpu'?")));
  EXPECT_THAT(problems_in("limit: {cpu: 1}"), ElementsAre(HasSubstr("did you mean 'limits'?")));
  EXPECT_THAT(problems_in("limits: 2"), ElementsAre(HasSubstr("a map with cpu, memory or io_weight")));
}

TEST(Limits, FlagsWinAndAreHeldAgainstTheGuestsMemory) {
  FlagValues flags;
  flags.add("memory", "256M");
  flags.add("limits.memory", "256M");
  flags.add("limits.cpu", "0.5");
  const auto outcome = load_spec(std::nullopt, flags);
  EXPECT_EQ(outcome.spec.limits.cpu, 500U);
  EXPECT_THAT(
      texts_of(outcome.problems),
      ElementsAre("limits: memory: 256M is for all of the machine, the guest's 256M and 16M at least "
                  "for snug itself: give it 272M or more, or say what it may have beyond the guest's, "
                  "as in +64M"));
  flags.by_key["limits.memory"] = {"272M"};
  EXPECT_THAT(texts_of(load_spec(std::nullopt, flags).problems), IsEmpty());
}

}  // namespace
}  // namespace snug
