// Any bytes as a spec: problems, never a crash; what is accepted survives being printed and parsed again.
// Input that begins with "=" is, by lines, the values of one flag after the other.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "vmm/base/assertion.h"
#include "vmm/spec/describe.h"
#include "vmm/spec/load.h"
#include "vmm/spec/reader.h"
#include "vmm/spec/text.h"

namespace {

void expect_sane(const std::vector<snug::Problem>& problems) {
  SNUG_ASSERT(problems.size() <= snug::kMaxProblems + 1);
  for (const auto& problem : problems) {
    const auto text = snug::format_problem(problem);
    SNUG_ASSERT(!problem.message.empty() && !snug::bad_text(text) && text.size() < 6000);
  }
}

void expect_stable(const snug::Spec& spec) {
  const auto again = snug::parse_spec_text(snug::effective_spec_yaml(spec), "again", "/elsewhere");
  SNUG_ASSERT(again.problems.empty());
  SNUG_ASSERT(again.spec == spec);
}

void fuzz_yaml(std::string_view text) {
  const auto outcome = snug::parse_spec_text(text, "vm.yaml", "/specs");
  expect_sane(outcome.problems);
  if (outcome.problems.empty()) expect_stable(outcome.spec);
}

void fuzz_flags(std::string_view text) {
  snug::FlagValues flags;
  const auto lines = snug::split(text, '\n');
  const auto& keys = snug::spec_keys();
  for (size_t i = 0; i < lines.size(); ++i) flags.add(keys[i % keys.size()].name, lines[i]);
  snug::Spec spec;
  snug::SpecReader reader(keys);
  reader.read_flags(flags, "/flags", &spec);
  const auto problems = reader.take_problems();
  expect_sane(problems);
  if (problems.empty()) expect_stable(spec);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (text.starts_with('=')) {
    fuzz_flags(text.substr(1));
  } else {
    fuzz_yaml(text);
  }
  return 0;
}
