#include "vmm/cli/background.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <optional>

#include "vmm/base/log.h"
#include "vmm/cli/machines.h"
#include "vmm/cli/put.h"
#include "vmm/run/runner.h"

namespace snug::cli {
namespace {

void replace_descriptor(const UniqueFd& with, int number) {
  if (with) ::dup2(with.get(), number);
}

// The status of a child that is about to end, or has: nothing when it runs on.
std::optional<int> status_of_ended(pid_t child) {
  constexpr int kLooks = 100;
  constexpr timespec kBetween{.tv_sec = 0, .tv_nsec = 20'000'000};
  for (int look = 0; look < kLooks; ++look) {
    int status = 0;
    if (::waitpid(child, &status, WNOHANG) == child)
      return WIFEXITED(status) ? std::optional(WEXITSTATUS(status)) : std::nullopt;
    ::nanosleep(&kBetween, nullptr);
  }
  return std::nullopt;
}

// What the child has to say before it lets go: the name, or nothing, when it has ended.
int wait_for_start(pid_t child, const UniqueFd& pipe,
                   const std::function<int(const std::string& name)>& started) {
  std::array<char, 128> name{};
  ssize_t count = -1;
  do count = ::read(pipe.get(), name.data(), name.size() - 1);
  while (count < 0 && errno == EINTR);
  if (count > 0) {
    put("{}\n", name.data());
    const int result = started(name.data());
    // With --rm a machine that has ended leaves nothing that says how, but it is our child.
    return result == kStatusFailure ? status_of_ended(child).value_or(result) : result;
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  put(stderr, "snug: the machine's process was killed by signal {}\n", WTERMSIG(status));
  return kStatusFailure;
}

}  // namespace

void Background::prepare(const VmDirectory& directory) {
  null_ = UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC));
  log_ = UniqueFd(
      ::openat(directory.fd(), "snug.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
}

void Background::leave_terminal() {
  const UniqueFd& errors = log_ ? log_ : null_;
  replace_descriptor(null_, STDIN_FILENO);
  replace_descriptor(null_, STDOUT_FILENO);
  replace_descriptor(errors, STDERR_FILENO);
  log_leave_stderr(errors.get());
  parent_.reset();
  null_.reset();
  log_.reset();
}

void Background::started(const std::string& name) {
  UniqueFd parent = std::move(parent_);
  leave_terminal();
  // Its reader may be gone (Ctrl-C): the machine runs all the same, as it was told to.
  (void)!::write(parent.get(), name.data(), name.size());
}

int in_background(const std::function<int(Background&)>& body,
                  const std::function<int(const std::string& name)>& started) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_command(Error{"pipe: " + errno_text(errno), {}});
  UniqueFd from_child(ends[0]);
  UniqueFd to_parent(ends[1]);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) return fail_command(Error{"fork: " + errno_text(errno), {}});
  if (child > 0) {
    to_parent.reset();
    return wait_for_start(child, from_child, started);
  }
  from_child.reset();
  // Away from the terminal: its Ctrl-C and its end are no business of the machine's.
  ::setsid();
  ::signal(SIGPIPE, SIG_IGN);
  Background background(std::move(to_parent));
  const int status = body(background);
  std::fflush(nullptr);
  std::_Exit(status);
}

}  // namespace snug::cli
