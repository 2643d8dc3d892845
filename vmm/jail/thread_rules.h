// Which system calls the threads of the monitor make while a guest runs, and why.
//
// Thread: any; nothing here has a state.
#pragma once

#include <vector>

#include "vmm/core/thread_kind.h"
#include "vmm/jail/filter.h"

namespace snug::jail {

// A thread has the filters of the one that started it, and its own: what a vCPU or a device may do, the
// builder may too.
std::vector<CallRule> thread_rules(ThreadKind kind);

// How many calls are made, whatever their arguments; not counting those that are answered with an errno.
unsigned allowed_calls(ThreadKind kind);

}  // namespace snug::jail
