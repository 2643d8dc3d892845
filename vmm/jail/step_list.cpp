#include "vmm/jail/step_list.h"

#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "vmm/jail/capabilities.h"
#include "vmm/jail/hints.h"

namespace snug::jail {
namespace {

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

}  // namespace

int failed(int outcome) { return outcome == 0 ? 0 : errno; }

void StepList::miss(std::string name, int error, std::string hint) {
  entry_.missing.push_back({std::move(name), errno_text(error), std::move(hint)});
}

void StepList::note(const std::string& name, int error) {
  if (error == 0)
    done(name);
  else
    miss(name, error, own_user_namespace_ ? hint_inside_namespaces(error) : "");
}

void StepList::namespaces() {
  own_user_namespace_ = split_.namespaces == Namespaces::kAll;
  if (split_.namespaces != Namespaces::kNone) done("namespaces: mount, pid, net, ipc, uts, cgroup");
  if (own_user_namespace_) done("user namespace");
  if (split_.refused != 0)
    miss(has_capability(CAP_SYS_ADMIN) ? "namespaces" : "user namespace", split_.refused,
         hint_for_namespaces(split_.refused));
}

void StepList::no_new_privileges() {
  note("no new privileges", failed(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)));
}

void StepList::not_dumpable() { note("not to be traced or dumped", failed(::prctl(PR_SET_DUMPABLE, 0))); }

void StepList::limits(const Limits& limits) {
  int error = lower_limit(RLIMIT_CORE, 0);
  if (error == 0) error = lower_limit(RLIMIT_NOFILE, limits.descriptors);
  note("limits", error);
  if (!own_user_namespace_) return;
  if (counts_threads_by_namespace())
    note("limit of threads", lower_limit(RLIMIT_NPROC, limits.threads));
  else
    entry_.missing.push_back({"limit of threads", "this kernel counts all of the user's", "Linux 5.14"});
}

void StepList::end_with_the_parent() { note("end with the parent", end_with_parent(split_)); }

int lay_empty_root(unsigned long flags, const char* options) {
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return errno;
  if (::mount("none", "/", "tmpfs", flags | MS_NOSUID | MS_NODEV | MS_NOEXEC, options) != 0) return errno;
  return failed(::chdir("/.."));
}

int enter_laid_root() {
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

}  // namespace snug::jail
