#include "vmm/jail/filter.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

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

uint32_t action_of(const CallRule& rule) {
  return rule.error == 0 ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | static_cast<uint32_t>(rule.error);
}

// All that is to be known of one call; always answers.
Program block(const CallRule& rule, pid_t process) {
  if (rule.allowed.empty()) return {answer(action_of(rule))};
  Program all;
  for (const Arguments& arguments : rule.allowed)
    append(all, alternative(arguments, process, action_of(rule)));
  all.push_back(answer(SECCOMP_RET_TRAP));
  return all;
}

// The same of a call that is recorded: `number` is that of the rule's first entry, and becomes the next
// one's.
Program recorded_block(const CallRule& rule, pid_t process, uint32_t& number) {
  Program all;
  for (const CallEntry& entry : entries_of({&rule, 1})) {
    const uint32_t action = rule.number == SYS_clone ? SECCOMP_RET_ALLOW : SECCOMP_RET_TRAP | number;
    append(all, alternative(entry.arguments, process, action));
    ++number;
  }
  if (!rule.allowed.empty()) all.push_back(answer(SECCOMP_RET_TRAP));
  return all;
}

// Goes on with what begins there; always answers.
template <typename BlockOf>
void append_rules(Program& to, std::span<const CallRule> rules, const BlockOf& block_of) {
  to.push_back(load(offsetof(seccomp_data, nr)));
  std::set<int> seen;
  for (const CallRule& rule : rules) {
    SNUG_ASSERT(rule.number >= 0 && seen.insert(rule.number).second);
    const Program of_call = block_of(rule);
    append_branch(to, BPF_JEQ, static_cast<uint32_t>(rule.number), 0, of_call.size());
    append(to, of_call);
  }
  to.push_back(answer(SECCOMP_RET_TRAP));
}

// Goes on behind it when the call was made there, otherwise `fail` instructions further.
void append_place(Program& to, uint64_t address, size_t fail) {
  constexpr size_t kPlace = offsetof(seccomp_data, instruction_pointer);
  Program low;
  append_half(low, kPlace, ~uint32_t{0}, static_cast<uint32_t>(address), fail);
  append_half(to, kPlace + sizeof(uint32_t), ~uint32_t{0}, static_cast<uint32_t>(address >> 32),
              low.size() + fail);
  append(to, low);
}

// No other architecture.
Program beginning() {
  Program program;
  program.push_back(load(offsetof(seccomp_data, arch)));
  append_branch(program, BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0);
  program.push_back(answer(SECCOMP_RET_KILL_PROCESS));
  program.push_back(load(offsetof(seccomp_data, nr)));
  append_branch(program, BPF_JSET, kX32, 0, 1);
  program.push_back(answer(SECCOMP_RET_KILL_PROCESS));
  return program;
}

Result<Program> of_right_size(Program program) {
  if (program.size() > kInstructions)
    return fail("a filter of {} instructions; the kernel takes {}", program.size(), kInstructions);
  return program;
}

// Each value of a list by itself.
std::vector<Arguments> single_values(const Arguments& arguments) {
  std::vector<Arguments> all{{}};
  for (const ArgumentTest& wanted : arguments) {
    std::vector<ArgumentTest> choices{wanted};
    if (wanted.kind == ArgumentTest::Kind::kOneOf) {
      choices.clear();
      for (const uint32_t value : wanted.values) choices.push_back(is(wanted.argument, value));
    }
    std::vector<Arguments> longer;
    for (const Arguments& before : all)
      for (const ArgumentTest& choice : choices) {
        longer.push_back(before);
        longer.back().push_back(choice);
      }
    all = std::move(longer);
  }
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
  Program program = beginning();
  append_rules(program, rules, [&](const CallRule& rule) { return block(rule, process); });
  return of_right_size(std::move(program));
}

std::vector<CallEntry> entries_of(std::span<const CallRule> rules) {
  std::vector<CallEntry> all;
  for (const CallRule& rule : rules) {
    if (rule.allowed.empty()) all.push_back({&rule, {}});
    for (const Arguments& arguments : rule.allowed)
      for (Arguments& single : single_values(arguments)) all.push_back({&rule, std::move(single)});
  }
  return all;
}

Result<std::vector<sock_filter>> build_recorded_filter(std::span<const CallRule> rules, pid_t process,
                                                       const RecordedCalls& recorded) {
  Program made;
  append_rules(made, rules, [&](const CallRule& rule) { return block(rule, process); });
  Program returned{load(offsetof(seccomp_data, nr))};
  append_branch(returned, BPF_JEQ, SYS_rt_sigreturn, 1, 0);
  returned.push_back(answer(SECCOMP_RET_TRAP));
  returned.push_back(answer(SECCOMP_RET_ALLOW));

  Program program = beginning();
  append_place(program, recorded.made_at, made.size());
  append(program, made);
  append_place(program, recorded.returned_at, returned.size());
  append(program, returned);
  uint32_t number = recorded.first;
  append_rules(program, rules, [&](const CallRule& rule) { return recorded_block(rule, process, number); });
  SNUG_ASSERT(number <= SECCOMP_RET_DATA);
  return of_right_size(std::move(program));
}

}  // namespace snug::jail
