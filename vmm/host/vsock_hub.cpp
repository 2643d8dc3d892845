#include "vmm/host/vsock_hub.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <charconv>
#include <optional>
#include <vector>

#include "vmm/base/log.h"
#include "vmm/base/socket_address.h"
#include "vmm/base/socket_io.h"

namespace snug {
namespace {

constexpr int kBacklog = 128;
constexpr int kAcceptAtOnce = 16;
constexpr size_t kLineMax = 32;
constexpr std::string_view kCommand = "CONNECT ";

UniqueFd make_socket() { return UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)); }

// 0 or an errno.
int connect_to(int fd, const sockaddr_un& address) {
  return ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? 0 : errno;
}

// Each connection is a descriptor; the usual limit of 1024 is there for programs that use select(2).
void raise_descriptor_limit() {
  constexpr rlim_t kWanted = 4096;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= kWanted) return;
  limit.rlim_cur = std::min(kWanted, limit.rlim_max);
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// "CONNECT 1024", with the end of the line taken off.
std::optional<uint32_t> port_of(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (!line.starts_with(kCommand)) return std::nullopt;
  line.remove_prefix(kCommand.size());
  uint32_t port = 0;
  const auto [stop, error] = std::from_chars(line.data(), line.data() + line.size(), port);
  if (error != std::errc() || stop != line.data() + line.size()) return std::nullopt;
  return port;
}

}  // namespace

Result<std::unique_ptr<VsockHub>> VsockHub::create(EventLoop& loop, const std::string& socket_path,
                                                   std::chrono::milliseconds patience) {
  std::unique_ptr<VsockHub> hub(new VsockHub(loop, patience));
  raise_descriptor_limit();
  if (socket_path.empty()) return hub;
  SNUG_TRY(with_context(hub->bind(socket_path), "vsock socket " + socket_path));
  SNUG_TRY(hub->take_clients());
  return hub;
}

Result<std::unique_ptr<VsockHub>> VsockHub::adopt(EventLoop& loop, UniqueFd socket,
                                                  std::chrono::milliseconds patience) {
  std::unique_ptr<VsockHub> hub(new VsockHub(loop, patience));
  raise_descriptor_limit();
  if (!socket) return hub;
  hub->socket_ = std::move(socket);
  SNUG_TRY(hub->take_clients());
  return hub;
}

Result<void> VsockHub::take_clients() {
  accept_watch_ = SNUG_TRY(loop_.watch(socket_.get(), EPOLLIN, [this](uint32_t) { accept_clients(); }));
  client_timer_ = SNUG_TRY(loop_.timer([this] { drop_late_clients(); }));
  accept_timer_ = SNUG_TRY(loop_.timer([this] { accept_watch_.set_events(EPOLLIN); }));
  return {};
}

VsockHub::~VsockHub() {
  struct stat status {};
  if (socket_ && folder_ && ::fstatat(folder_.get(), name_.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
      status.st_ino == inode_)
    ::unlinkat(folder_.get(), name_.c_str(), 0);
}

std::string VsockHub::socket_of_port(uint32_t port) const { return fmt::format("{}_{}", name_, port); }

Result<void> VsockHub::bind(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  name_ = path.substr(slash == std::string::npos ? 0 : slash + 1);
  folder_ = SNUG_TRY(open_file(folder, O_PATH | O_DIRECTORY));
  const sockaddr_un own = SNUG_TRY(socket_address(folder_.get(), name_));
  // Those on which the guest reaches the host.
  SNUG_TRY(socket_address(folder_.get(), socket_of_port(~uint32_t{0})));
  struct stat status {};
  if (::fstatat(folder_.get(), name_.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
    if (!S_ISSOCK(status.st_mode))
      return fail_with_hint("there is a file of that name", "remove it, or use another name");
    const UniqueFd probe = make_socket();
    if (connect_to(probe.get(), own) != ECONNREFUSED)
      return fail_with_hint("another program listens there", "use another name");
    ::unlinkat(folder_.get(), name_.c_str(), 0);
  }
  UniqueFd socket = make_socket();
  if (!socket) return fail_errno(errno, "socket");
  // What the file is made with.
  ::fchmod(socket.get(), 0600);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&own), sizeof own) != 0)
    return fail_errno(errno, "bind");
  if (::fstatat(folder_.get(), name_.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) inode_ = status.st_ino;
  socket_ = std::move(socket);
  if (::listen(socket_.get(), kBacklog) != 0) return fail_errno(errno, "listen");
  return {};
}

// --- the guest's side -------------------------------------------------------------------------------

tl::expected<UniqueFd, int> VsockHub::open(uint32_t port) {
  if (listeners_.contains(port)) {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) != 0)
      return tl::unexpected(errno);
    UniqueFd ours(ends[0]);
    loop_.post(
        [this, alive = std::weak_ptr<int>(alive_), port, theirs = std::make_shared<UniqueFd>(ends[1])] {
          if (alive.expired()) return;
          if (const auto found = listeners_.find(port); found != listeners_.end()) {
            const Accepted accepted = found->second;
            accepted(std::move(*theirs));
          }
        });
    return ours;
  }
  if (!socket_) return tl::unexpected(ECONNREFUSED);
  return connect_by_name_ ? connect_by_name_(port) : connect_by_name(port);
}

tl::expected<UniqueFd, int> VsockHub::connect_by_name(uint32_t port) const {
  UniqueFd stream = make_socket();
  if (!stream) return tl::unexpected(errno);
  const auto address = socket_address(folder_.get(), socket_of_port(port));
  if (!address) return tl::unexpected(ENAMETOOLONG);
  if (const int error = connect_to(stream.get(), *address)) return tl::unexpected(error);
  return stream;
}

void VsockHub::listen(uint32_t host_port, Accepted accepted) { listeners_[host_port] = std::move(accepted); }

// --- the host's side --------------------------------------------------------------------------------

void VsockHub::reach_for(uint32_t guest_port, UniqueFd stream, VsockDone done) {
  if (!reach_) return done({.error = EHOSTUNREACH});
  reach_(guest_port, std::move(stream), std::move(done));
}

void VsockHub::connect(uint32_t guest_port, Connected done) {
  std::array<int, 2> ends{-1, -1};
  const int made = ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data());
  const int error = made == 0 ? 0 : errno;
  auto theirs = std::make_shared<UniqueFd>(ends[1]);
  auto tell = [&loop = loop_, alive = std::weak_ptr<int>(alive_), theirs,
               done = std::move(done)](const VsockOutcome& outcome) {
    loop.post([alive, theirs, done, failure = outcome.error] {
      if (alive.expired()) return;
      done(failure == 0 ? std::move(*theirs) : UniqueFd(), failure);
    });
  };
  if (error != 0) return tell({.error = error});
  reach_for(guest_port, UniqueFd(ends[0]), std::move(tell));
}

void VsockHub::accept_clients() {
  for (int i = 0; i < kAcceptAtOnce; ++i) {
    if (clients_.size() >= kClientsMax) return pause_accepting(std::chrono::milliseconds(10));
    UniqueFd fd(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd && (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR)) return;
    // No descriptors or no memory: what waits must not keep the loop busy.
    if (!fd) return pause_accepting(std::chrono::milliseconds(100));
    const uint64_t id = next_client_++;
    auto watch = loop_.watch(fd.get(), EPOLLIN, [this, id](uint32_t) { read_client(id); });
    if (!watch) return;
    const auto deadline = std::chrono::steady_clock::now() + patience_;
    if (clients_.empty()) client_timer_.arm(patience_);
    clients_.emplace(id, Client{std::move(fd), std::move(*watch), {}, deadline});
  }
}

void VsockHub::pause_accepting(std::chrono::milliseconds pause) {
  accept_watch_.set_events(0);
  accept_timer_.arm(pause);
}

void VsockHub::drop_late_clients() {
  const auto now = std::chrono::steady_clock::now();
  std::erase_if(clients_, [now](const auto& entry) { return entry.second.deadline <= now; });
  if (!clients_.empty()) client_timer_.arm(patience_);
}

void VsockHub::drop_client(uint64_t id) { clients_.erase(id); }

// Takes the line and nothing behind it: that is the guest's.
void VsockHub::read_client(uint64_t id) {
  Client& client = clients_.at(id);
  std::array<char, kLineMax> bytes{};
  const ssize_t count =
      receive_some(client.fd.get(), bytes.data(), bytes.size() - client.line.size(), MSG_PEEK);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) return drop_client(id);
  std::string_view seen(bytes.data(), static_cast<size_t>(count));
  const size_t end = seen.find('\n');
  seen = seen.substr(0, end);
  client.line += seen;
  const size_t taken = seen.size() + (end == std::string_view::npos ? 0 : 1);
  if (receive_some(client.fd.get(), bytes.data(), taken) != static_cast<ssize_t>(taken))
    return drop_client(id);
  if (end == std::string_view::npos && client.line.size() < kLineMax) return;
  const auto port = end == std::string_view::npos ? std::nullopt : port_of(client.line);
  client.watch.reset();
  UniqueFd stream = std::move(client.fd);
  if (!port) log_info("vsock: a client said something else than {}PORT", kCommand);
  drop_client(id);
  if (!port) return;
  reach_for(*port, std::move(stream), [](const VsockOutcome& outcome) {
    if (outcome.error != 0) return;
    // The first bytes of an empty socket: there is room, or the client is gone.
    const std::string answer = fmt::format("OK {}\n", outcome.host_port);
    (void)!send_some(outcome.fd, answer.data(), answer.size(), MSG_DONTWAIT);
  });
}

}  // namespace snug
