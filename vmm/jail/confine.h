// The monitor's threads give up all system calls that they have no use for, for good.
//
// Thread: confine_thread() on the thread that it is about; watch_violations() before there are others.
#pragma once

#include "vmm/base/result.h"
#include "vmm/core/thread_kind.h"

namespace snug::jail {

// Sanitizers make calls of their own: programs that are built with one are not confined.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kConfines = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
constexpr bool kConfines = false;
#else
constexpr bool kConfines = true;
#endif
#else
constexpr bool kConfines = true;
#endif

// From here on the calling thread, and those that it starts, make the calls of thread_rules(kind) only. A
// thread that was started by one that is confined may confine itself further, if that one is a builder. The
// event loop is the process's first thread. Sets no_new_privs where it is not set yet. Errors: the kernel has
// no seccomp, or the thread that started this one allows no more filters.
Result<void> confine_thread(ThreadKind kind);

// From here on, a thread that makes another call ends the process: with one line to `fd`, which stays open,
// and status 159; and malloc() makes do with what threads may call. After an assertion that failed, which has
// said what there is to say, the status is 134.
Result<void> watch_violations(int fd);

}  // namespace snug::jail
