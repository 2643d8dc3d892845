// A program for seccomp(2), from a table of the system calls that a thread may make. It looks at numbers and
// at the arguments themselves, never at what they point to: that could change behind its back.
//
// Thread: any; nothing here has a state.
#pragma once

#include <linux/filter.h>
#include <sys/types.h>

#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "vmm/base/result.h"

namespace snug::jail {

// One argument, 0 to 5, and what it must be. Most are 32 bits to the kernel, which does not look at the rest
// of the register; neither does such a test.
struct ArgumentTest {
  enum class Kind : uint8_t {
    kOneOf,       // the low 32 bits are one of `values`
    kEqual64,     // all bits are `value`
    kMasked64,    // the bits of `mask` are `value`
    kOwnProcess,  // the low 32 bits are the number of this process
  };
  uint8_t argument = 0;
  Kind kind = Kind::kEqual64;
  uint64_t value = 0;
  uint64_t mask = 0;
  std::vector<uint32_t> values;
};

ArgumentTest is(uint8_t argument, uint32_t value);
ArgumentTest is64(uint8_t argument, uint64_t value);
ArgumentTest one_of(uint8_t argument, std::vector<uint32_t> values);
// None of these bits.
ArgumentTest without(uint8_t argument, uint64_t bits);
ArgumentTest is_own_process(uint8_t argument);

// All of them hold.
using Arguments = std::vector<ArgumentTest>;

// A call with arguments that fit none of `allowed` ends the process; without any, all do.
struct CallRule {
  int number = -1;
  const char* why = "";
  std::vector<Arguments> allowed;
  int error = 0;  // the call is not made and fails with this errno; 0: it is made
};

// `rules`: each call once, the most frequent first. `process`: what is_own_process() asks for. Everything
// that no rule lets through is a SIGSYS; another architecture's calls, and those of x32, are the end of the
// process. Errors: more instructions than the kernel takes.
Result<std::vector<sock_filter>> build_filter(std::span<const CallRule> rules, pid_t process);

// What a rule lets through, value by value: each of them is one that somebody has to need.
struct CallEntry {
  const CallRule* rule = nullptr;
  Arguments arguments;  // of each list one value
};
// In the order of `rules`, which outlive them.
std::vector<CallEntry> entries_of(std::span<const CallRule> rules);

// How a program that is recorded tells itself: addresses behind an instruction "syscall" of its own.
struct RecordedCalls {
  uint64_t made_at = 0;      // by which the recorder makes calls: build_filter()'s rules hold there
  uint64_t returned_at = 0;  // by which it returns from its signal
  uint16_t first = 1;        // number of the first of entries_of(rules), not 0
};

// As build_filter(), but a call that a rule lets through, or answers, is a SIGSYS whose si_errno is the
// number of its entry; what no rule lets through is one with 0. clone, which nobody can make for another, is
// made.
Result<std::vector<sock_filter>> build_recorded_filter(std::span<const CallRule> rules, pid_t process,
                                                       const RecordedCalls& recorded);

}  // namespace snug::jail
