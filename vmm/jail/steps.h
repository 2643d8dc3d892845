// The way in: what the process behind the wall gives up before it does anything a guest can have a say in.
//
// Thread: the only one of its process; threads made later have all of it from the start.
#pragma once

#include <sys/resource.h>

#include <string>
#include <vector>

#include "vmm/jail/process.h"

namespace snug::jail {

// What a host refuses: {"user namespace", "Operation not permitted", "sudo sysctl ..."}. The hint is for a
// person and may be empty.
struct MissingStep {
  std::string name;
  std::string why;
  std::string hint;
};

// Never above what the process may have already.
struct Limits {
  rlim_t descriptors;
  rlim_t threads;  // the first one included
};

// What has become of each step, by name. What follows from a missing one is in neither list: an empty root,
// for instance, takes a mount namespace.
struct Entry {
  std::vector<std::string> done;
  std::vector<MissingStep> missing;
};

// In the child of split(): locks it in for good, as far as the host goes along. Afterwards it can open
// nothing, and has what is open already: descriptors that are not for it are to be closed by the caller,
// folders above all. Ends the process if its parent is gone.
Entry take_steps(const Split& split, const Limits& limits);
inline std::vector<MissingStep> enter(const Split& split, const Limits& limits) {
  return take_steps(split, limits).missing;
}

// The last of the steps, also for a child that is not locked in: SIGKILL when the thread that made it ends.
// Undone by any change of user or capabilities. A parent that may not send that signal (a user other than
// the child's, without CAP_KILL) is only noticed by Split::lifeline. 0 or an errno.
int end_with_parent(const Split& split);

// What enter() could do on this host: by a child that tries it, says so and ends. Callers with one thread
// only. Errors: there can be no child.
Result<Entry> try_out();

}  // namespace snug::jail
