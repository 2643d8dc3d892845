#include "vmm/jail/steps.h"

#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "vmm/jail/capabilities.h"
#include "vmm/jail/hints.h"
#include "vmm/jail/landlock.h"
#include "vmm/jail/step_list.h"

namespace snug::jail {
namespace {

int leave_the_file_systems() {
  if (const int error = lay_empty_root(MS_RDONLY, "size=4k,nr_inodes=1,mode=555"); error != 0) return error;
  return enter_laid_root();
}

// Root in front of the wall is nobody behind it. Groups first: EINVAL says that this namespace knows no such
// group or user, and then its root is some other user on the host.
int become_nobody() {
  if (::setresgid(kNobody, kNobody, kNobody) != 0) return errno;
  if (::setgroups(0, nullptr) != 0) return errno;
  return failed(::setresuid(kNobody, kNobody, kNobody));
}

class Way : private StepList {
 public:
  using StepList::StepList;

  Entry take(const Limits& limits) {
    // An ordinary user's needs no map of users and groups: to itself the child is nobody then, it can make no
    // file and no further user namespace, and stays its user in the eyes of the host.
    namespaces();
    if (split().namespaces != Namespaces::kNone) empty_root();
    user();
    capabilities();
    no_new_privileges();
    not_dumpable();
    landlock();
    // The step before takes a descriptor.
    StepList::limits(limits);
    // Last: what came before would undo it.
    end_with_the_parent();
    return StepList::take();
  }

 private:
  void empty_root() {
    const int error = leave_the_file_systems();
    if (error != EINVAL) return note("empty root", error);
    miss("empty root", error, "a mount point as the folder of the chroot: mount --bind FOLDER FOLDER");
  }

  // Whoever could become any user: root, of the host or of a container.
  void user() {
    if (own_user_namespace() ? !split().maps_nobody : !has_capability(CAP_SETUID)) return;
    // What would be lost with the user.
    if (has_capability(CAP_SETPCAP)) lock_capabilities();
    if (const int error = become_nobody(); error != EINVAL) note("another user, nobody", error);
    // As nobody, who has no say in the other namespaces, for those belong to root; and who is not mapped in
    // the new one, without which there can be no further one.
    if (split().namespaces == Namespaces::kNone) return;
    const int error = failed(::unshare(CLONE_NEWUSER));
    if (error != 0) return miss("user namespace", error, hint_for_namespaces(error));
    if (!own_user_namespace()) done("user namespace");
    has_user_namespace();
  }

  void capabilities() {
    // Without the right to it there is nothing that it would bound: the next step sees to that.
    if (has_capability(CAP_SETPCAP))
      if (const int error = lock_capabilities(); error != 0)
        miss("bounding set of capabilities", error, hint_inside_namespaces(error));
    note("no capabilities", drop_capabilities());
  }

  void landlock() {
    const int version = landlock_version();
    const int error = version < 0 ? errno : 0;
    if (error != 0) return miss("Landlock", error, hint_for_landlock(error));
    note(fmt::format("Landlock, version {}", version), forbid_names(version));
  }
};

}  // namespace

Entry take_steps(const Split& split, const Limits& limits) { return Way(split).take(limits); }

int end_with_parent(const Split& split) {
  const int error = failed(::prctl(PR_SET_PDEATHSIG, SIGKILL));
  // It may have ended before it could have been told; then there is nobody to report to.
  if (parent_gone(split.lifeline.get())) ::_exit(1);
  return error;
}

}  // namespace snug::jail
