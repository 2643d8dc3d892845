#include "vmm/host/spawn.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <string_view>

#include "vmm/base/unique_fd.h"

namespace snug {
namespace {

constexpr int kThird = 3;

// What the child says when it could not do it.
struct Failure {
  int error = 0;
  bool by_namespace = false;
};

// All that the child needs, made before there is one.
struct Plan {
  const SpawnRequest& request;
  std::vector<char*> arguments;
  std::array<char, 64> user_map{}, group_map{};
  bool root = ::geteuid() == 0;
  sigset_t no_signals{};

  explicit Plan(const SpawnRequest& from) : request(from) {
    for (const std::string& argument : from.arguments)
      arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    std::snprintf(user_map.data(), user_map.size(), "%u %u 1", ::geteuid(), ::geteuid());
    std::snprintf(group_map.data(), group_map.size(), "%u %u 1", ::getegid(), ::getegid());
    ::sigemptyset(&no_signals);
  }
};

// --- in the child: system calls only -------------------------------------------------------------------

bool put(const char* path, std::string_view text, int flags = O_WRONLY) {
  const int fd = ::open(path, flags | O_CLOEXEC, 0444);
  if (fd < 0) return false;
  const bool whole = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  ::close(fd);
  return whole;
}

bool leave_mount_namespace(const Plan& plan) {
  if (plan.root && ::unshare(CLONE_NEWNS) == 0) return true;
  if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
  return put("/proc/self/setgroups", "deny") && put("/proc/self/uid_map", plan.user_map.data()) &&
         put("/proc/self/gid_map", plan.group_map.data());
}

// The file lies in a file system in memory, which lies over /tmp for a moment: there is one everywhere.
bool replace_resolv_conf(const Plan& plan) {
  constexpr const char* kFile = "/tmp/resolv.conf";
  return leave_mount_namespace(plan) && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=1m,mode=755") == 0 &&
         put(kFile, *plan.request.resolv_conf, O_WRONLY | O_CREAT | O_EXCL) &&
         ::mount(kFile, "/etc/resolv.conf", nullptr, MS_BIND, nullptr) == 0 &&
         // The program may lie in there.
         ::umount2("/tmp", MNT_DETACH) == 0;
}

// Returns only when it could not be done.
Failure become(const Plan& plan) {
  const SpawnRequest& request = plan.request;
  if (request.resolv_conf && !replace_resolv_conf(plan)) return {errno, true};
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  ::sigprocmask(SIG_SETMASK, &plan.no_signals, nullptr);
  ::setpgid(0, 0);
  // Kept by execve(2); without it the program takes more memory, no more.
  if (request.small_pages) ::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  const int null = ::open("/dev/null", O_RDONLY);
  // In this order: 0 to 2 first, for `output` and `third` lie above them.
  if (null < 0 || ::dup2(null, STDIN_FILENO) < 0 || ::dup2(request.output, STDOUT_FILENO) < 0 ||
      ::dup2(request.output, STDERR_FILENO) < 0)
    return {errno, false};
  if (null > kThird) ::close(null);
  // dup2 to itself would leave it close-on-exec.
  const bool wanted = request.third >= 0;
  if (wanted &&
      (request.third == kThird ? ::fcntl(kThird, F_SETFD, 0) < 0 : ::dup2(request.third, kThird) < 0))
    return {errno, false};
  // What we have inherited ourselves is nothing to it either.
  ::close_range(wanted ? kThird + 1 : kThird, ~0U, CLOSE_RANGE_CLOEXEC);
  ::execv(request.program.c_str(), plan.arguments.data());
  return {errno, false};
}

}  // namespace

tl::expected<pid_t, SpawnError> spawn(const SpawnRequest& request) {
  const Plan plan(request);
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0)
    return tl::unexpected(SpawnError{false, fail_errno(errno, "pipe").value()});
  const UniqueFd from_child(pipe[0]);
  // Above what the child's descriptors become.
  UniqueFd to_parent(::fcntl(pipe[1], F_DUPFD_CLOEXEC, kThird + 1));
  ::close(pipe[1]);
  // No signal handler of ours may run in the child.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t child = ::fork();
  const int fork_error = errno;
  if (child == 0) {
    const Failure failure = become(plan);
    (void)!::write(to_parent.get(), &failure, sizeof failure);
    ::_exit(127);
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (child < 0) return tl::unexpected(SpawnError{false, fail_errno(fork_error, "fork").value()});
  to_parent.reset();
  Failure failure;
  ssize_t count = -1;
  do count = ::read(from_child.get(), &failure, sizeof failure);
  while (count < 0 && errno == EINTR);
  // Closed by exec.
  if (count <= 0) return child;
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) continue;
  return tl::unexpected(
      SpawnError{failure.by_namespace, fail_errno(failure.error, "start {}", request.program).value()});
}

}  // namespace snug
