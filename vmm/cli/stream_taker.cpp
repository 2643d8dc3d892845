#include "vmm/cli/stream_taker.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "vmm/cli/put.h"

namespace snug::cli {
namespace {

constexpr int kPipeBytes = 1 << 20;

[[noreturn]] void become(const std::vector<std::string>& words, int in, int out) {
  ::dup2(in, STDIN_FILENO);
  ::dup2(out, STDOUT_FILENO);
  ::signal(SIGPIPE, SIG_DFL);
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  ::execvp(arguments[0], arguments.data());
  put(stderr, "snug: {}: {}\n", words.front(), errno_text(errno));
  ::_exit(errno == ENOENT ? 127 : 126);
}

// The beginning of it, when it is all there.
std::string read_all(const UniqueFd& output) {
  constexpr size_t kMost = 4096;
  std::string said;
  for (std::array<char, 512> buffer{};;) {
    const ssize_t count = ::read(output.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return said;
    if (said.size() < kMost) said.append(buffer.data(), static_cast<size_t>(count));
  }
}

// In a thread that takes no signals.
std::future<std::string> reading(UniqueFd output) {
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  auto said = std::async(std::launch::async, [output = std::move(output)] { return read_all(output); });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return said;
}

}  // namespace

Result<StreamTaker> StreamTaker::start(const std::vector<std::string>& words) {
  std::array<int, 2> in{};
  std::array<int, 2> out{};
  if (::pipe2(in.data(), O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  const UniqueFd read_end(in[0]);
  StreamTaker taker;
  taker.program_ = words.front();
  taker.input_ = UniqueFd(in[1]);
  // Fewer turns between the two, if it can be.
  (void)::fcntl(in[1], F_SETPIPE_SZ, kPipeBytes);
  if (::pipe2(out.data(), O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  UniqueFd output(out[0]);
  const UniqueFd write_end(out[1]);
  std::fflush(nullptr);
  taker.pid_ = ::fork();
  if (taker.pid_ < 0) return fail_errno(errno, "fork");
  if (taker.pid_ == 0) become(words, read_end.get(), write_end.get());
  taker.said_ = reading(std::move(output));
  return taker;
}

Result<std::string> StreamTaker::finish() {
  input_.reset();
  const std::string said = said_.get();
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return said.substr(0, said.find('\n'));
  return fail("{} has ended with {}", program_,
              WIFEXITED(status) ? fmt::format("status {}", WEXITSTATUS(status))
                                : fmt::format("signal {}", WTERMSIG(status)));
}

}  // namespace snug::cli
