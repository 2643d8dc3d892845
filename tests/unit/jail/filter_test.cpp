#include "vmm/jail/filter.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <cerrno>
#include <numeric>

#include "tests/unit/jail/interpreter.h"

namespace snug::jail {
namespace {

constexpr uint32_t kErrno = SECCOMP_RET_ERRNO;
constexpr pid_t kProcess = 4711;

uint32_t ask(const std::vector<CallRule>& rules, long number, std::array<uint64_t, 6> arguments = {}) {
  const auto program = build_filter(rules, kProcess);
  return evaluate(program.value(), call_of(number, arguments));
}

TEST(Filter, LetsThroughWhatARuleNamesOnly) {
  const std::vector<CallRule> rules{{SYS_read, "", {}}, {SYS_write, "", {}}};
  EXPECT_EQ(ask(rules, SYS_read), SECCOMP_RET_ALLOW);
  EXPECT_EQ(ask(rules, SYS_write, {1, 2, 3, 4, 5, 6}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(ask(rules, SYS_openat), SECCOMP_RET_TRAP);
  EXPECT_EQ(ask({}, SYS_read), SECCOMP_RET_TRAP);
}

TEST(Filter, KnowsOneArchitectureOnly) {
  const auto program = build_filter(std::vector<CallRule>{{SYS_read, "", {}}}, kProcess).value();
  seccomp_data call = call_of(SYS_read);
  call.arch = AUDIT_ARCH_I386;
  EXPECT_EQ(evaluate(program, call), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(evaluate(program, call_of(SYS_read | 0x40000000)), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(evaluate(program, call_of(-1)), SECCOMP_RET_KILL_PROCESS);
}

TEST(Filter, AnswersWithAnErrno) {
  const std::vector<CallRule> rules{{SYS_clone3, "", {}, ENOSYS}, {SYS_brk, "", {{is(0, 1)}}, ENOMEM}};
  EXPECT_EQ(ask(rules, SYS_clone3), kErrno | ENOSYS);
  EXPECT_EQ(ask(rules, SYS_brk, {1}), kErrno | ENOMEM);
  EXPECT_EQ(ask(rules, SYS_brk, {2}), SECCOMP_RET_TRAP);
}

TEST(Filter, LooksAtTheLowHalfOfWhatHas32Bits) {
  const std::vector<CallRule> rules{{SYS_ioctl, "", {{one_of(1, {7, 9, 0xffffffff})}}}};
  for (const uint64_t value : {uint64_t{7}, uint64_t{9}, uint64_t{0xffffffff}, uint64_t{0xabc} << 32 | 9})
    EXPECT_EQ(ask(rules, SYS_ioctl, {0, value}), SECCOMP_RET_ALLOW) << value;
  for (const uint64_t value : {uint64_t{0}, uint64_t{8}, uint64_t{7} << 32})
    EXPECT_EQ(ask(rules, SYS_ioctl, {0, value}), SECCOMP_RET_TRAP) << value;
}

TEST(Filter, LooksAtBothHalvesOfWhatHas64Bits) {
  constexpr uint64_t kValue = 0x1234567800abcdef;
  const std::vector<CallRule> rules{{SYS_clone, "", {{is64(0, kValue)}}}};
  EXPECT_EQ(ask(rules, SYS_clone, {kValue}), SECCOMP_RET_ALLOW);
  for (unsigned bit = 0; bit < 64; ++bit)
    EXPECT_EQ(ask(rules, SYS_clone, {kValue ^ uint64_t{1} << bit}), SECCOMP_RET_TRAP) << bit;
}

TEST(Filter, LooksAtSomeBits) {
  constexpr uint64_t kMask = uint64_t{1} << 40 | 4;
  const std::vector<CallRule> rules{{SYS_mmap, "", {{without(2, kMask)}}}};
  EXPECT_EQ(ask(rules, SYS_mmap, {0, 0, ~kMask}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(ask(rules, SYS_mmap, {0, 0, 4}), SECCOMP_RET_TRAP);
  EXPECT_EQ(ask(rules, SYS_mmap, {0, 0, uint64_t{1} << 40}), SECCOMP_RET_TRAP);
}

TEST(Filter, KnowsItsOwnProcess) {
  const std::vector<CallRule> rules{{SYS_tgkill, "", {{is_own_process(0), is(2, 34)}}}};
  EXPECT_EQ(ask(rules, SYS_tgkill, {kProcess, 1, 34}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(ask(rules, SYS_tgkill, {kProcess + 1, 1, 34}), SECCOMP_RET_TRAP);
  EXPECT_EQ(ask(rules, SYS_tgkill, {kProcess, 1, 9}), SECCOMP_RET_TRAP);
}

TEST(Filter, TakesAnyAlternativeOfWhichAllHolds) {
  const std::vector<CallRule> rules{{SYS_fcntl, "", {{is(1, 1), is64(2, 10)}, {is(1, 2), is64(2, 20)}}}};
  EXPECT_EQ(ask(rules, SYS_fcntl, {0, 1, 10}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(ask(rules, SYS_fcntl, {0, 2, 20}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(ask(rules, SYS_fcntl, {0, 1, 20}), SECCOMP_RET_TRAP);
  EXPECT_EQ(ask(rules, SYS_fcntl, {0, 2, 10}), SECCOMP_RET_TRAP);
}

// Conditional jumps reach 255 instructions.
TEST(Filter, JumpsFar) {
  std::vector<uint32_t> many(700);
  std::iota(many.begin(), many.end(), 1000U);
  const std::vector<CallRule> rules{
      {SYS_ioctl, "", {{is(0, 1), one_of(1, many), is(2, 5)}, {is(0, 2), one_of(1, many)}}},
      {SYS_read, "", {}}};
  const auto program = build_filter(rules, kProcess).value();
  const auto answer = [&](long number, std::array<uint64_t, 6> arguments = {}) {
    return evaluate(program, call_of(number, arguments));
  };
  for (const uint32_t value : many) {
    ASSERT_EQ(answer(SYS_ioctl, {1, value, 5}), SECCOMP_RET_ALLOW) << value;
    ASSERT_EQ(answer(SYS_ioctl, {1, value, 6}), SECCOMP_RET_TRAP) << value;
    ASSERT_EQ(answer(SYS_ioctl, {2, value, 6}), SECCOMP_RET_ALLOW) << value;
    ASSERT_EQ(answer(SYS_ioctl, {3, value, 5}), SECCOMP_RET_TRAP) << value;
  }
  EXPECT_EQ(answer(SYS_ioctl, {1, 999, 5}), SECCOMP_RET_TRAP);
  EXPECT_EQ(answer(SYS_ioctl, {2, 1700, 5}), SECCOMP_RET_TRAP);
  EXPECT_EQ(answer(SYS_read), SECCOMP_RET_ALLOW);
  EXPECT_EQ(answer(SYS_write), SECCOMP_RET_TRAP);
}

TEST(Filter, SaysWhenItIsTooLarge) {
  std::vector<uint32_t> many(5000);
  std::iota(many.begin(), many.end(), 0U);
  const auto program = build_filter(std::vector<CallRule>{{SYS_ioctl, "", {{one_of(1, many)}}}}, kProcess);
  ASSERT_FALSE(program);
  EXPECT_NE(program.error().text().find("4096"), std::string::npos);
}

}  // namespace
}  // namespace snug::jail
