// For tests: which entries of thread_rules() the threads of this process need. The filters are as strict as
// ever, but each call that they let through is a signal, whose handler notes it and makes it.
//
// Thread: record_calls() before there are others, the rest on any.
#pragma once

#include <linux/filter.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/core/thread_kind.h"
#include "vmm/jail/filter.h"

namespace snug::jail {

// From here on, confine_thread() confines like that. At the process's end what it has made is written to
// `fd`, which stays open and appends: one write for each line. To be called behind watch_violations(), which
// is left what is to be done about other calls.
Result<void> record_calls(int fd);

// "KIND CALL" and, of calls that are let through with some arguments only, " ARGUMENT=VALUE" of each.
std::string record_line(ThreadKind kind, const CallEntry& entry);

// --- for confine.cpp ----------------------------------------------------------------------------------

bool records_calls();
Result<std::vector<sock_filter>> recorded_filter(ThreadKind kind, pid_t process);
// A thread confines itself as one of `kind`.
void record_beginning(ThreadKind kind);

}  // namespace snug::jail
