#include "vmm/jail/process.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

#include "vmm/jail/capabilities.h"

namespace snug::jail {
namespace {

constexpr unsigned long kAllButUser =
    CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

unsigned long flags_of(Namespaces namespaces) {
  switch (namespaces) {
    case Namespaces::kNone:
      return 0;
    case Namespaces::kAllButUser:
      return kAllButUser;
    case Namespaces::kAll:
      return kAllButUser | CLONE_NEWUSER;
  }
  return 0;
}

// Where the C library keeps the number of the calling thread, or nullptr where that cannot be known. The
// kernel has been told of it, to clear it when the thread ends; other libraries tell it of another place.
pid_t* own_thread_number() {
  pid_t* address = nullptr;
  if (::prctl(PR_GET_TID_ADDRESS, &address) != 0 || address == nullptr) return nullptr;
  return *address == ::gettid() ? address : nullptr;
}

// The system call, for fork(2) takes no flags and clone(3) wants another stack. What fork(2) does besides:
// handlers of pthread_atfork and locks of the library, of no use to a process with one thread; and the number
// that glibc keeps of a thread. The latter is put right by the kernel, as for fork(2). Where it cannot be
// (kernels without CONFIG_CHECKPOINT_RESTORE) the child's first thread has the parent's number in glibc's
// eyes: no matter to raise(3) and abort(3), which ask the kernel since 2.34, but pthread_kill(3) of that
// thread is wrong, and so are recursive mutexes if a later thread has just that number.
pid_t clone_process(unsigned long flags, int& process) {
  pid_t* const number = own_thread_number();
  if (number != nullptr) flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
  // In x86's order of arguments.
  return static_cast<pid_t>(
      ::syscall(SYS_clone, flags | SIGCHLD | CLONE_PIDFD, nullptr, &process, number, nullptr));
}

// The child's user namespace gets one user and one group. Needs CAP_SETUID and CAP_SETGID.
bool map_nobody(pid_t child) {
  const std::string map = fmt::format("{0} {0} 1", kNobody);
  for (const char* file : {"uid_map", "gid_map"}) {
    const auto fd = open_file(fmt::format("/proc/{}/{}", child, file), O_WRONLY);
    if (!fd || ::write(fd->get(), map.data(), map.size()) != static_cast<ssize_t>(map.size())) return false;
  }
  return true;
}

// Both processes: the child cannot do it itself, and waits for it.
void agree_on_nobody(Split& split) {
  if (split.child != 0) {
    split.maps_nobody = map_nobody(split.child);
    // Into an empty pipe, of which this process has the other end as well so far: it neither waits nor fails.
    (void)!::write(split.lifeline.get(), &split.maps_nobody, sizeof split.maps_nobody);
    return;
  }
  ssize_t count = 0;
  do count = ::read(split.lifeline.get(), &split.maps_nobody, sizeof split.maps_nobody);
  while (count < 0 && errno == EINTR);
}

}  // namespace

Result<Split> split(Confinement confinement, ParentIs parent) {
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  UniqueFd for_child(pipe[0]);
  UniqueFd for_parent(pipe[1]);

  Split result;
  int process = -1;
  const unsigned long sibling = parent == ParentIs::kCallersParent ? CLONE_PARENT : 0;
  // Root, but of a container that keeps it from mounting.
  const bool could_be_another = has_capability(CAP_SETUID) && has_capability(CAP_SETGID);
  result.user = ::geteuid();
  result.group = ::getegid();
  if (confinement != Confinement::kNone) {
    // Who may do without a user namespace gets one later, as another user: see enter().
    result.namespaces = has_capability(CAP_SYS_ADMIN) ? Namespaces::kAllButUser : Namespaces::kAll;
    result.child = clone_process(sibling | flags_of(result.namespaces), process);
    if (result.child < 0) result.refused = errno;
  }
  if (confinement == Confinement::kNone || result.child < 0) {
    result.namespaces = Namespaces::kNone;
    result.child = clone_process(sibling, process);
    if (result.child < 0) return fail_errno(errno, "clone");
  }
  if (result.child == 0) {
    result.lifeline = std::move(for_child);
    for_parent.reset();
  } else {
    result.process = UniqueFd(process);
    result.lifeline = std::move(for_parent);
  }
  if (confinement == Confinement::kNamespaces && result.namespaces == Namespaces::kAll && could_be_another)
    agree_on_nobody(result);
  return result;
}

bool parent_gone(int lifeline) {
  pollfd end{lifeline, 0, 0};
  return ::poll(&end, 1, 0) > 0 && (end.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

}  // namespace snug::jail
