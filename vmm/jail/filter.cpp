#include "vmm/jail/filter.h"

#include <linux/audit.h>
#include <linux/seccomp.h>

#include <cstddef>
#include <set>

#include "vmm/base/assertion.h"

namespace snug::jail {
namespace {

using Program = std::vector<sock_filter>;

constexpr size_t kShortJump = 255;      // a conditional jump has 8 bits
constexpr uint32_t kX32 = 0x40000000;   // asm/unistd.h: __X32_SYSCALL_BIT
constexpr size_t kInstructions = 4096;  // linux/bpf_common.h: BPF_MAXINSNS

sock_filter load(size_t offset) { return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)); }
sock_filter answer(uint32_t action) { return BPF_STMT(BPF_RET | BPF_K, action); }
sock_filter jump(size_t distance) { return BPF_STMT(BPF_JMP | BPF_JA, static_cast<uint32_t>(distance)); }

// x86 has the low half first.
size_t low_half(uint8_t argument) { return offsetof(seccomp_data, args) + argument * sizeof(uint64_t); }
size_t high_half(uint8_t argument) { return low_half(argument) + sizeof(uint32_t); }

void append(Program& to, const Program& what) { to.insert(to.end(), what.begin(), what.end()); }

// Distances count from behind what is appended. A far target gets an unconditional jump, which has 32 bits.
void append_branch(Program& to, uint16_t condition, uint32_t value, size_t if_so, size_t if_not) {
  const auto code = static_cast<uint16_t>(BPF_JMP | condition | BPF_K);
  const auto branch = [&](size_t yes, size_t no) {
    to.push_back(BPF_JUMP(code, value, static_cast<uint8_t>(yes), static_cast<uint8_t>(no)));
  };
  if (if_so <= kShortJump && if_not <= kShortJump) return branch(if_so, if_not);
  branch(0, 1);
  to.push_back(jump(if_so + 1));
  to.push_back(jump(if_not));
}

// Goes on behind it when the half under `mask` is `value`, otherwise `fail` instructions further.
void append_half(Program& to, size_t offset, uint32_t mask, uint32_t value, size_t fail) {
  if (mask == 0) return;
  to.push_back(load(offset));
  if (mask != ~uint32_t{0}) to.push_back(BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask));
  append_branch(to, BPF_JEQ, value, 0, fail);
}

Program test_64_bits(uint8_t argument, uint64_t mask, uint64_t value, size_t fail) {
  Program low;
  append_half(low, low_half(argument), static_cast<uint32_t>(mask), static_cast<uint32_t>(value), fail);
  Program both;
  append_half(both, high_half(argument), static_cast<uint32_t>(mask >> 32),
              static_cast<uint32_t>(value >> 32), low.size() + fail);
  append(both, low);
  return both;
}

Program test_list(uint8_t argument, const std::vector<uint32_t>& values, size_t fail) {
  // From the last one on, since a jump has to know what lies between.
  Program rest;
  for (auto value = values.rbegin(); value != values.rend(); ++value) {
    Program now;
    append_branch(now, BPF_JEQ, *value, rest.size(), rest.empty() ? fail : 0);
    append(now, rest);
    rest = std::move(now);
  }
  Program all{load(low_half(argument))};
  append(all, rest);
  return all;
}

Program test(const ArgumentTest& wanted, pid_t process, size_t fail) {
  switch (wanted.kind) {
    case ArgumentTest::Kind::kOneOf:
      return test_list(wanted.argument, wanted.values, fail);
    case ArgumentTest::Kind::kEqual64:
      return test_64_bits(wanted.argument, ~uint64_t{0}, wanted.value, fail);
    case ArgumentTest::Kind::kMasked64:
      return test_64_bits(wanted.argument, wanted.mask, wanted.value, fail);
    case ArgumentTest::Kind::kOwnProcess:
      break;
  }
  return test_list(wanted.argument, {static_cast<uint32_t>(process)}, fail);
}

// Answers if all tests hold, otherwise goes on behind it.
Program alternative(const Arguments& arguments, pid_t process, uint32_t action) {
  Program rest{answer(action)};
  for (auto wanted = arguments.rbegin(); wanted != arguments.rend(); ++wanted) {
    Program now = test(*wanted, process, rest.size());
    append(now, rest);
    rest = std::move(now);
  }
  return rest;
}

// All that is to be known of one call; always answers.
Program block(const CallRule& rule, pid_t process) {
  const uint32_t action =
      rule.error == 0 ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | static_cast<uint32_t>(rule.error);
  if (rule.allowed.empty()) return {answer(action)};
  Program all;
  for (const Arguments& arguments : rule.allowed) append(all, alternative(arguments, process, action));
  all.push_back(answer(SECCOMP_RET_TRAP));
  return all;
}

}  // namespace

ArgumentTest is(uint8_t argument, uint32_t value) { return one_of(argument, {value}); }

ArgumentTest is64(uint8_t argument, uint64_t value) {
  return {.argument = argument, .kind = ArgumentTest::Kind::kEqual64, .value = value, .values = {}};
}

ArgumentTest one_of(uint8_t argument, std::vector<uint32_t> values) {
  SNUG_ASSERT(!values.empty());
  return {.argument = argument, .kind = ArgumentTest::Kind::kOneOf, .values = std::move(values)};
}

ArgumentTest without(uint8_t argument, uint64_t bits) {
  return {.argument = argument, .kind = ArgumentTest::Kind::kMasked64, .mask = bits, .values = {}};
}

ArgumentTest is_own_process(uint8_t argument) {
  return {.argument = argument, .kind = ArgumentTest::Kind::kOwnProcess, .values = {}};
}

Result<std::vector<sock_filter>> build_filter(std::span<const CallRule> rules, pid_t process) {
  Program program;
  program.push_back(load(offsetof(seccomp_data, arch)));
  append_branch(program, BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0);
  program.push_back(answer(SECCOMP_RET_KILL_PROCESS));
  program.push_back(load(offsetof(seccomp_data, nr)));
  append_branch(program, BPF_JSET, kX32, 0, 1);
  program.push_back(answer(SECCOMP_RET_KILL_PROCESS));
  std::set<int> seen;
  for (const CallRule& rule : rules) {
    SNUG_ASSERT(rule.number >= 0 && seen.insert(rule.number).second);
    const Program of_call = block(rule, process);
    append_branch(program, BPF_JEQ, static_cast<uint32_t>(rule.number), 0, of_call.size());
    append(program, of_call);
  }
  program.push_back(answer(SECCOMP_RET_TRAP));
  if (program.size() > kInstructions)
    return fail("a filter of {} instructions; the kernel takes {}", program.size(), kInstructions);
  return program;
}

}  // namespace snug::jail
