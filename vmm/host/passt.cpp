#include "vmm/host/passt.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "vmm/base/log.h"
#include "vmm/host/host_network.h"
#include "vmm/host/host_ports.h"
#include "vmm/host/resolvers.h"
#include "vmm/host/spawn.h"

namespace snug {
namespace {

constexpr int kSocketInChild = 3;
constexpr int kSocketBuffer = 4 << 20;  // bytes; the host's limit may be lower
constexpr int kEndMilliseconds = 500;
constexpr const char* kInstall = "install it (Debian: sudo apt install passt), or choose net: none";

// Name servers of the host that are on its loopback: passt forwards to them.
struct Forwarding {
  std::vector<std::string> options;
  std::string resolv_conf;  // the host's
  bool wanted = false;
  bool v6 = false;  // only by IPv6
};

Forwarding forwarding_for(const NetSpec& net) {
  Forwarding forwarding;
  // The gateway's address leads to them.
  if (net.host_loopback) return forwarding;
  std::ifstream file("/etc/resolv.conf");
  forwarding.resolv_conf = {std::istreambuf_iterator<char>(file), {}};
  const Resolvers resolvers = resolvers_in(forwarding.resolv_conf);
  forwarding.wanted = resolvers.any_on_loopback();
  forwarding.v6 = resolvers.loopback6 && !resolvers.loopback4;
  if (resolvers.loopback4) forwarding.options = {"--dns-forward", kDnsForward4};
  if (forwarding.v6) forwarding.options.insert(forwarding.options.end(), {"--dns-forward", kDnsForward6});
  return forwarding;
}

std::vector<std::string> arguments_for(const NetSpec& net, const Forwarding& forwarding) {
  std::vector<std::string> arguments{"passt",    "--foreground", "--quiet",
                                     "--stderr", "--fd",         std::to_string(kSocketInChild)};
  const auto add = [&arguments](const std::vector<std::string>& more) {
    arguments.insert(arguments.end(), more.begin(), more.end());
  };
  if (net.mtu != 0) add({"--mtu", std::to_string(net.mtu)});
  if (!net.host_loopback) add({"--no-map-gw"});
  add(address_options(look_at_host_network(), net.ports, forwarding.v6));
  add(forwarding.options);
  for (const PortForward& forward : net.ports)
    add({forward.udp ? "-u" : "-t",
         fmt::format("{}/{}:{}", forward.host_ip, forward.host_port, forward.guest_port)});
  return arguments;
}

// Where it may not have a resolv.conf of its own: what systemd-resolved's stub asks in its turn, when there
// is one. A passt of 2025 knows by itself what to do.
std::vector<std::string> name_servers_behind_the_stub() {
  std::ifstream file("/run/systemd/resolve/resolv.conf");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<std::string> options;
  for (const std::string& address : reachable_resolvers(text))
    if (address.find('%') == std::string::npos) options.insert(options.end(), {"--dns", address});
  return options;
}

Result<pid_t> spawn_passt(const std::string& program, const NetSpec& net, int socket, int output) {
  const Forwarding forwarding = forwarding_for(net);
  SpawnRequest request{.program = program,
                       .arguments = arguments_for(net, forwarding),
                       .output = output,
                       .third = socket,
                       .small_pages = true};
  if (forwarding.wanted) request.resolv_conf = forwarding_resolv_conf(forwarding.resolv_conf);
  auto pid = spawn(request);
  if (!pid && pid.error().by_namespace) {
    const std::string why = pid.error().error.text();
    request.resolv_conf.reset();
    std::vector<std::string> servers = name_servers_behind_the_stub();
    if (servers.empty())
      log_warn(
          "the guest may find no name server: this host's are on its loopback, and passt gets no "
          "resolv.conf of its own: {}",
          why);
    else
      log_info("passt gets no resolv.conf of its own: {}", why);
    for (std::string& option : servers) request.arguments.push_back(std::move(option));
    pid = spawn(request);
  }
  if (!pid) return tl::unexpected(pid.error().error);
  return *pid;
}

// A line about syslog, or about root, says nothing to whoever started a guest.
bool is_noise(std::string_view line) {
  for (const std::string_view noise :
       {"Failed to send ", "Don't run as root", "Started as root", "--stderr will be dropped"})
    if (line.starts_with(noise)) return true;
  return line.empty();
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
  // passt would only say it among its other messages.
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

  const pid_t pid = SNUG_TRY(spawn_passt(program, net, theirs.get(), their_output.get()));
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

// Who has an address that is nobody's? passt answers as soon as it looks at its socket at all, and it opens
// its ports before. The answer is left in the socket: a device drops what came before its driver was there.
Result<void> Passt::wait_until_ready(const MacAddress& guest) {
  std::array<uint8_t, 46> question{0,    0,    0,    42,                                        // length
                                   0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 8, 6,  // Ethernet
                                   0,    1,    8,    0,    6,    4,    0, 1};  // ARP: who has
  std::copy(guest.begin(), guest.end(), question.begin() + 10);
  std::copy(guest.begin(), guest.end(), question.begin() + 26);
  constexpr std::array<uint8_t, 4> kNobody{169, 254, 0, 1};
  std::copy(kNobody.begin(), kNobody.end(), question.end() - 4);
  // Fits into an empty socket. Where passt is gone already, its end is what is told.
  (void)!::send(socket_.get(), question.data(), question.size(), MSG_NOSIGNAL);
  const auto deadline = std::chrono::steady_clock::now() + kReadyPatience;
  for (;;) {
    std::array<pollfd, 3> waits{pollfd{socket_.get(), POLLIN, 0}, pollfd{process_fd_.get(), POLLIN, 0},
                                pollfd{output_.get(), POLLIN, 0}};
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    const int count =
        ::poll(waits.data(), waits.size(), static_cast<int>(std::max<int64_t>(left.count(), 0)));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "poll");
    if (count == 0) return fail("passt does not answer within {} s", kReadyPatience.count());
    if (waits[2].revents != 0) hear();
    if (waits[1].revents != 0) return fail("{}", last_words());
    if ((waits[0].revents & (POLLIN | POLLHUP)) == POLLIN) return {};
    // Hung up: it is about to end, and has said why.
    if (waits[0].revents != 0) {
      ::poll(&waits[1], 1, kEndMilliseconds);
      return fail("{}", last_words());
    }
  }
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
    if (said_.empty()) return "passt " + wait_text(status);
    // What one that was killed had said before is not why.
    if (WIFSIGNALED(status)) return fmt::format("passt {} (it had said: {})", wait_text(status), said_);
  }
  return fmt::format("passt: {}", said_);
}

}  // namespace snug
