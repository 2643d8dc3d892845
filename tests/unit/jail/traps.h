// Calls that seccomp traps, seen by the process that makes them. For one thread at a time.
#pragma once

#include <setjmp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <set>

namespace snug::jail {

constexpr long kHighest = 600;
// uretprobe and uprobe: the kernel lets no filter see them, and ends whoever makes them elsewhere than it has
// put them.
inline const std::set<long> kUnseen{335, 336};

inline sigjmp_buf after_trap;
inline volatile sig_atomic_t trapped_call;

// Left by a jump: most threads may not return from a signal.
inline void on_trap(int, siginfo_t* info, void*) {
  trapped_call = info->si_syscall;
  siglongjmp(after_trap, 1);
}

inline void watch_traps() {
  struct sigaction action {};
  action.sa_sigaction = on_trap;
  action.sa_flags = static_cast<int>(SA_SIGINFO | SA_NODEFER);
  ::sigaction(SIGSYS, &action, nullptr);
}

struct Call {
  long number;
  std::array<unsigned long, 4> arguments;
};

// What the call gives; -1 also when it was trapped. With arguments behind that no call can do anything with,
// lest one be made after all.
inline long made(const Call& call) {
  trapped_call = -1;
  if (sigsetjmp(after_trap, 0) == 0)
    return ::syscall(call.number, call.arguments[0], call.arguments[1], call.arguments[2], call.arguments[3],
                     -1L, -1L);
  return -1;
}

inline bool is_trapped(const Call& call) {
  made(call);
  return trapped_call == call.number;
}

}  // namespace snug::jail
