// Makes the process behind the wall: a child with namespaces of its own, which goes on from where its parent
// is.
//
// Thread: the only one of its process. Locks that another thread holds would stay locked in the child.
#pragma once

#include <sys/types.h>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug::jail {

// The user and the group that own nothing, by convention.
inline constexpr unsigned kNobody = 65534;

enum class Namespaces {
  kNone,
  kAllButUser,  // root: mount, pid, net, ipc, uts, cgroup; enter() adds the user namespace
  kAll,
};

// What fork(2) would say, in both processes.
struct Split {
  pid_t child = 0;  // 0 in the child
  // In the parent: a pidfd of the child, readable when it has ended.
  UniqueFd process;
  // A pipe that nobody writes to any more: the parent has the end for writing, the child the one for reading,
  // which hangs up when the parent is gone, however it went. In the parent it stays open as long as the child
  // is to run.
  UniqueFd lifeline;
  Namespaces namespaces = Namespaces::kNone;
  // Whether the user namespace has a user for the child to become, nobody, who is nobody outside as well.
  // Only root can give it one.
  bool maps_nobody = false;
  // Why there are no namespaces though some were asked for: an errno, or 0.
  int refused = 0;
  // Who the parent is.
  uid_t user = 0;
  gid_t group = 0;
};

enum class Confinement {
  kNone,
  kNamespaces,
  // The child stays who it is and has no other user in its user namespace, if it has one: see map_self().
  kNamespacesAsSelf,
};

// Who is the child's parent: who waits for it, and whose end ends it.
enum class ParentIs { kCaller, kCallersParent };

// The child is the first of its PID namespace (kNone: an ordinary child), which makes it an init: signals
// without a handler do nothing to it, its own and the parent's alike, but for the parent's SIGKILL and
// SIGSTOP and for what a fault raises. abort(3) there ends with SIGSEGV.
// A host that refuses namespaces still gives a child, see `refused`. Errors: no process, no descriptors.
Result<Split> split(Confinement confinement, ParentIs parent = ParentIs::kCaller);

// Whether the other end of a lifeline is closed. Never waits.
bool parent_gone(int lifeline);

}  // namespace snug::jail
