#include "vmm/jail/steps.h"

#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "vmm/jail/capabilities.h"
#include "vmm/jail/hints.h"
#include "vmm/jail/landlock.h"

namespace snug::jail {
namespace {

int failed(int outcome) { return outcome == 0 ? 0 : errno; }

// Before 5.14 the limit of threads counts all processes of the user, whatever namespace they are in.
bool counts_threads_by_namespace() {
  utsname host{};
  int major = 0;
  int minor = 0;
  ::uname(&host);
  if (std::sscanf(host.release, "%d.%d", &major, &minor) != 2) return false;
  return major > 5 || (major == 5 && minor >= 14);
}

// Never upwards, and not to be undone: the hard limit goes with it.
int lower_limit(__rlimit_resource which, rlim_t value) {
  rlimit limit{};
  if (::getrlimit(which, &limit) != 0) return errno;
  limit.rlim_max = std::min(limit.rlim_max, value);
  limit.rlim_cur = limit.rlim_max;
  return failed(::setrlimit(which, &limit));
}

// The new root lies over the old one, so that it takes no folder of the host's; "/" itself still leads to the
// old one, but ".." of it is what lies on top.
int leave_the_file_systems() {
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return errno;
  if (::mount("none", "/", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "size=4k,nr_inodes=1,mode=555") != 0)
    return errno;
  if (::chdir("/..") != 0) return errno;
  if (::syscall(SYS_pivot_root, ".", ".") == 0) {
    // The old one lies on top now.
    if (::umount2(".", MNT_DETACH) != 0) return errno;
  } else if (::chroot(".") != 0) {
    // The kernel keeps its very first root, in which an initrd runs that mounts no other. Who has no
    // capabilities does not get out of this either.
    return errno;
  }
  return failed(::chdir("/"));
}

// Root in front of the wall is nobody behind it. Groups first: EINVAL says that this namespace knows no such
// group or user, and then its root is some other user on the host.
int become_nobody() {
  if (::setresgid(kNobody, kNobody, kNobody) != 0) return errno;
  if (::setgroups(0, nullptr) != 0) return errno;
  return failed(::setresuid(kNobody, kNobody, kNobody));
}

class Way {
 public:
  explicit Way(const Split& split) : split_(split) {}

  Entry take(const Limits& limits) {
    namespaces();
    if (split_.namespaces != Namespaces::kNone) empty_root();
    user();
    capabilities();
    note("no new privileges", failed(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)));
    note("not to be traced or dumped", failed(::prctl(PR_SET_DUMPABLE, 0)));
    landlock();
    // The step before takes a descriptor.
    set_limits(limits);
    // Last: what came before would undo it.
    note("end with the parent", end_with_parent(split_));
    return std::move(entry_);
  }

 private:
  void done(std::string name) { entry_.done.push_back(std::move(name)); }
  void miss(std::string name, int error, std::string hint) {
    entry_.missing.push_back({std::move(name), errno_text(error), std::move(hint)});
  }
  void note(const char* name, int error) {
    if (error == 0)
      done(name);
    else
      miss(name, error, own_user_namespace_ ? hint_inside_namespaces(error) : "");
  }

  // An ordinary user's needs no map of users and groups: to itself the child is nobody then, it can make no
  // file and no further user namespace, and stays its user in the eyes of the host.
  void namespaces() {
    own_user_namespace_ = split_.namespaces == Namespaces::kAll;
    if (split_.namespaces != Namespaces::kNone) done("namespaces: mount, pid, net, ipc, uts, cgroup");
    if (own_user_namespace_) done("user namespace");
    if (split_.refused != 0)
      miss(has_capability(CAP_SYS_ADMIN) ? "namespaces" : "user namespace", split_.refused,
           hint_for_namespaces(split_.refused));
  }

  void empty_root() {
    const int error = leave_the_file_systems();
    if (error != EINVAL) return note("empty root", error);
    miss("empty root", error, "a mount point as the folder of the chroot: mount --bind FOLDER FOLDER");
  }

  // Whoever could become any user: root, of the host or of a container.
  void user() {
    if (own_user_namespace_ ? !split_.maps_nobody : !has_capability(CAP_SETUID)) return;
    // What would be lost with the user.
    if (has_capability(CAP_SETPCAP)) lock_capabilities();
    if (const int error = become_nobody(); error != EINVAL) note("another user, nobody", error);
    // As nobody, who has no say in the other namespaces, for those belong to root; and who is not mapped in
    // the new one, without which there can be no further one.
    if (split_.namespaces == Namespaces::kNone) return;
    const int error = failed(::unshare(CLONE_NEWUSER));
    if (error != 0) return miss("user namespace", error, hint_for_namespaces(error));
    if (!own_user_namespace_) done("user namespace");
    own_user_namespace_ = true;
  }

  // RLIMIT_FSIZE would be of sparse disks, too.
  void set_limits(const Limits& limits) {
    int error = lower_limit(RLIMIT_CORE, 0);
    if (error == 0) error = lower_limit(RLIMIT_NOFILE, limits.descriptors);
    note("limits", error);
    if (!own_user_namespace_) return;
    if (counts_threads_by_namespace())
      note("limit of threads", lower_limit(RLIMIT_NPROC, limits.threads));
    else
      entry_.missing.push_back({"limit of threads", "this kernel counts all of the user's", "Linux 5.14"});
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
    note(fmt::format("Landlock, version {}", version).c_str(), forbid_names(version));
  }

  const Split& split_;
  bool own_user_namespace_ = false;
  Entry entry_;
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
