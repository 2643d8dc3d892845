#include "vmm/oci/skopeo.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <vector>

#include "vmm/base/unique_fd.h"
#include "vmm/host/passt.h"

namespace snug::oci {
namespace {

constexpr size_t kLogMax = 64 << 10;

// Until it closes its stderr, which is shown to nobody: the last of it is what went wrong.
std::string read_log(int from) {
  std::string log;
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t count = ::read(from, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return log;
    log.append(buffer.data(), static_cast<size_t>(count));
    if (log.size() > kLogMax) log.erase(0, log.size() - kLogMax);
  }
}

// In our own process group: Ctrl-C ends both. Its stdout, which shows how far it is, becomes our stderr.
Result<pid_t> start(const std::string& program, const std::vector<std::string>& arguments, int log) {
  std::vector<char*> words;
  for (const std::string& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, log, STDERR_FILENO);
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, program.c_str(), &actions, nullptr, words.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return fail_errno(error, "start {}", program);
  return pid;
}

}  // namespace

Result<void> copy_image(const std::string& source, const std::string& layout, const std::string& blobs) {
  const std::string program = find_program("skopeo");
  if (program.empty())
    return fail_with_hint("skopeo, which brings images, is not on PATH",
                          "install it: sudo apt install skopeo");
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  const UniqueFd from(pipe[0]);
  UniqueFd to(pipe[1]);
  std::vector<std::string> arguments{"skopeo", "--override-os",          "linux", "--override-arch", "amd64",
                                     "copy",   "--dest-shared-blob-dir", blobs};
  // An image on this machine is not told what it may be by a policy that speaks of registries; a registry's
  // is.
  arguments.insert(arguments.end(), {source, "oci:" + layout + ":image"});
  const pid_t pid = SNUG_TRY(start(program, arguments, to.get()));
  to.reset();
  const std::string log = read_log(from.get());
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  if (WIFSIGNALED(status)) return fail("skopeo was killed by signal {}", WTERMSIG(status));
  const std::string message = last_message(log);
  return fail("{}",
              message.empty() ? fmt::format("skopeo ended with status {}", WEXITSTATUS(status)) : message);
}

std::string last_message(const std::string& log) {
  constexpr std::string_view kKey = "msg=\"";
  std::string_view line(log);
  while (!line.empty() && line.back() == '\n') line.remove_suffix(1);
  line.remove_prefix(line.rfind('\n') + 1);
  const size_t key = line.find(kKey);
  if (key == std::string_view::npos) return std::string(line);
  std::string message;
  for (size_t i = key + kKey.size(); i < line.size() && line[i] != '"'; ++i) {
    if (line[i] == '\\' && i + 1 < line.size()) ++i;
    message += line[i];
  }
  return message;
}

}  // namespace snug::oci
