// Which system calls the threads of the monitor make while a guest runs, and why.
//
// Thread: any; nothing here has a state.
#pragma once

#include <cstdint>
#include <vector>

#include "vmm/core/thread_kind.h"
#include "vmm/jail/filter.h"

namespace snug::jail {

// A thread has the filters of the one that started it, and its own: what a vCPU or a device may do, the
// builder may too.
std::vector<CallRule> thread_rules(ThreadKind kind);

// An entry of the table (entries_of()) that not every run of the tests makes use of, and why it is there
// all the same. tools/test holds the table against what machines were seen to call: what nobody has called
// and is not in this list has to go.
struct Unseen {
  enum class By : uint8_t {
    kLinuxGuests,  // micro-guests do not need it, Linux guests do
    kAnyTest,      // it depends on the host, the C library or on luck
  };
  std::vector<ThreadKind> kinds;
  int number = -1;
  std::vector<uint32_t> values;  // of its list; without any, whatever its arguments are
  By by = By::kAnyTest;
  const char* why = "";
};
const std::vector<Unseen>& unseen_entries();
// The one that is about this entry of a kind, or nullptr.
const Unseen* find_unseen(ThreadKind kind, const CallEntry& entry);

// How many calls are made, whatever their arguments; not counting those that are answered with an errno.
unsigned allowed_calls(ThreadKind kind);

}  // namespace snug::jail
