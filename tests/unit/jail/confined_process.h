// A process for each case, since a filter is for good.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <string>
#include <thread>

#include "vmm/base/unique_fd.h"
#include "vmm/jail/confine.h"

namespace snug::jail {

struct Ended {
  int status = 0;  // of waitpid(2)
  std::string said;
  int exit_status() const { return WIFEXITED(status) ? WEXITSTATUS(status) : -1; }
  int signal() const { return WIFSIGNALED(status) ? WTERMSIG(status) : 0; }
};

// `work` gets a descriptor for what it has to say; its result is the exit status.
inline Ended in_a_process(const std::function<int(int)>& work) {
  std::array<int, 2> pipe{};
  EXPECT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
  UniqueFd from(pipe[0]);
  UniqueFd to(pipe[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(::open("/dev/null", O_WRONLY), STDERR_FILENO);
    ::_exit(work(to.get()));
  }
  to.reset();
  Ended ended;
  std::array<char, 4096> buffer;
  for (ssize_t count; (count = ::read(from.get(), buffer.data(), buffer.size())) > 0;)
    ended.said.append(buffer.data(), static_cast<size_t>(count));
  EXPECT_EQ(::waitpid(child, &ended.status, 0), child);
  return ended;
}

// On a thread of `kind`; the event loop is a process's first. Ends the process.
inline int on_thread(ThreadKind kind, const std::function<int()>& work) {
  const auto confined = [&] {
    if (!confine_thread(kind)) ::_exit(100);
    ::_exit(work());
  };
  if (kind == ThreadKind::kLoop) confined();
  std::thread(confined).join();
  return 101;
}

}  // namespace snug::jail
