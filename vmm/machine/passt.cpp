#include "vmm/machine/passt.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <utility>
#include <vector>

#include "vmm/base/log.h"

namespace snug {
namespace {

constexpr int kSocketInChild = 3;
constexpr int kSocketBuffer = 4 << 20;  // bytes; the host's limit may be lower
constexpr int kEndMilliseconds = 500;
constexpr const char* kInstall = "install it (Debian: sudo apt install passt), or choose net: none";

sockaddr_storage address_of(const PortForward& forward, socklen_t& length) {
  sockaddr_storage storage{};
  const bool v6 = forward.host_ip.find(':') != std::string::npos;
  if (v6) {
    auto& address = reinterpret_cast<sockaddr_in6&>(storage);
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(forward.host_port);
    ::inet_pton(AF_INET6, forward.host_ip.c_str(), &address.sin6_addr);
    length = sizeof address;
  } else {
    auto& address = reinterpret_cast<sockaddr_in&>(storage);
    address.sin_family = AF_INET;
    address.sin_port = htons(forward.host_port);
    ::inet_pton(AF_INET, forward.host_ip.c_str(), &address.sin_addr);
    length = sizeof address;
  }
  return storage;
}

// passt would only say it among its other messages, when the guest runs already.
Result<void> check_port(const PortForward& forward) {
  socklen_t length = 0;
  const sockaddr_storage address = address_of(forward, length);
  const UniqueFd probe(
      ::socket(address.ss_family, (forward.udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0));
  if (!probe) return fail_errno(errno, "socket");
  const int on = 1;
  if (!forward.udp) ::setsockopt(probe.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(probe.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0) return {};
  const int error = errno;
  const std::string what = fmt::format("publish {} port {} on {}: {}", forward.udp ? "UDP" : "TCP",
                                       forward.host_port, forward.host_ip, errno_text(error));
  if (error == EADDRINUSE) return fail_with_hint(what, "choose another host port, or end what uses it");
  if (error == EACCES) return fail_with_hint(what, "choose a host port of 1024 or more");
  if (error == EADDRNOTAVAIL) return fail_with_hint(what, "no interface of this host has that address");
  return fail("{}", what);
}

std::vector<std::string> arguments_for(const NetSpec& net) {
  std::vector<std::string> arguments{"passt",    "--foreground", "--quiet",
                                     "--stderr", "--fd",         std::to_string(kSocketInChild)};
  if (net.mtu != 0) arguments.insert(arguments.end(), {"--mtu", std::to_string(net.mtu)});
  if (!net.host_loopback) arguments.emplace_back("--no-map-gw");
  for (const PortForward& forward : net.ports) {
    arguments.emplace_back(forward.udp ? "-u" : "-t");
    arguments.push_back(fmt::format("{}/{}:{}", forward.host_ip, forward.host_port, forward.guest_port));
  }
  return arguments;
}

struct SpawnSettings {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  SpawnSettings() {
    ::posix_spawn_file_actions_init(&files);
    ::posix_spawnattr_init(&attributes);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
  ~SpawnSettings() {
    ::posix_spawn_file_actions_destroy(&files);
    ::posix_spawnattr_destroy(&attributes);
  }
};

// In a process group of its own: Ctrl-C on the terminal is for snug, which gives the guest time to end.
Result<pid_t> spawn(const std::string& program, std::vector<std::string> arguments, int socket, int output) {
  SpawnSettings settings;
  // In this order: 0 to 2 first, for `socket` and `output` lie above them.
  ::posix_spawn_file_actions_addopen(&settings.files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&settings.files, output, STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&settings.files, output, STDERR_FILENO);
  ::posix_spawn_file_actions_adddup2(&settings.files, socket, kSocketInChild);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  ::posix_spawnattr_setsigmask(&settings.attributes, &none);
  ::posix_spawnattr_setsigdefault(&settings.attributes, &all);
  ::posix_spawnattr_setpgroup(&settings.attributes, 0);
  ::posix_spawnattr_setflags(&settings.attributes,
                             POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_t pid = -1;
  const int error =
      ::posix_spawn(&pid, program.c_str(), &settings.files, &settings.attributes, argv.data(), environ);
  if (error != 0) return fail_errno(error, "start {}", program);
  return pid;
}

// A line about syslog, or about root, says nothing to whoever started a guest.
bool is_noise(std::string_view line) {
  return line.empty() || line.starts_with("Failed to send ") || line.starts_with("Don't run as root");
}

std::string wait_text(int status) {
  if (WIFSIGNALED(status)) return fmt::format("killed by signal {}", WTERMSIG(status));
  return fmt::format("ended with status {}", WEXITSTATUS(status));
}

}  // namespace

std::string find_program(const std::string& name) {
  const char* variable = std::getenv("PATH");  // NOLINT(concurrency-mt-unsafe): nothing sets it
  std::string_view path = variable != nullptr ? variable : "/usr/local/bin:/usr/bin:/bin";
  for (;;) {
    const size_t colon = path.find(':');
    const std::string_view folder = path.substr(0, colon);
    // An empty entry is the current folder: not a place for a program that gets our network.
    if (folder.starts_with('/')) {
      std::string program = fmt::format("{}/{}", folder, name);
      if (::access(program.c_str(), X_OK) == 0) return program;
    }
    if (colon == std::string_view::npos) return {};
    path.remove_prefix(colon + 1);
  }
}

Result<Passt> Passt::start(const NetSpec& net) {
  const std::string program = find_program("passt");
  if (program.empty())
    return fail_with_hint("passt, which connects guests without privileges, is not installed", kInstall);
  for (const PortForward& forward : net.ports) SNUG_TRY(check_port(forward));

  std::array<int, 2> pair{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0)
    return fail_errno(errno, "socketpair");
  UniqueFd ours(pair[0]);
  const UniqueFd theirs(pair[1]);
  for (const int socket : pair)
    ::setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &kSocketBuffer, sizeof kSocketBuffer);
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  UniqueFd output(pipe[0]);
  const UniqueFd their_output(pipe[1]);
  ::fcntl(output.get(), F_SETFL, O_NONBLOCK);

  const pid_t pid = SNUG_TRY(spawn(program, arguments_for(net), theirs.get(), their_output.get()));
  UniqueFd process_fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!process_fd) {
    const int error = errno;
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return fail_errno(error, "pidfd_open");
  }
  log_debug("passt: process {}", pid);
  return Passt(pid, std::move(process_fd), std::move(ours), std::move(output));
}

Passt::Passt(Passt&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      process_fd_(std::move(other.process_fd_)),
      socket_(std::move(other.socket_)),
      output_(std::move(other.output_)) {}

Passt::~Passt() {
  if (pid_ < 0) return;
  socket_.reset();
  ::kill(pid_, SIGTERM);
  pollfd ended{.fd = process_fd_.get(), .events = POLLIN, .revents = 0};
  if (::poll(&ended, 1, kEndMilliseconds) <= 0) ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void Passt::kill() {
  if (pid_ >= 0) ::kill(pid_, SIGKILL);
}

bool Passt::hear() {
  constexpr size_t kKept = 1024;
  for (;;) {
    std::array<char, 4096> buffer;
    const ssize_t count = ::read(output_.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return count < 0 && errno == EAGAIN;
    std::string_view text(buffer.data(), static_cast<size_t>(count));
    while (!text.empty()) {
      const size_t end = std::min(text.find('\n'), text.size());
      const std::string_view line = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      if (is_noise(line)) continue;
      log_info("passt: {}", line);
      said_ += fmt::format("{}{}", said_.empty() ? "" : "; ", line);
      if (said_.size() > kKept) said_.erase(0, said_.size() - kKept);
    }
  }
}

std::string Passt::last_words() {
  hear();
  int status = 0;
  if (pid_ >= 0 && ::waitpid(pid_, &status, WNOHANG) == pid_) {
    pid_ = -1;
    return said_.empty() ? "passt " + wait_text(status) : fmt::format("passt: {}", said_);
  }
  return fmt::format("passt: {}", said_);
}

}  // namespace snug
