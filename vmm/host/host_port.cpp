#include "vmm/host/host_port.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <chrono>

#include "vmm/base/log.h"
#include "vmm/base/socket_address.h"
#include "vmm/base/socket_io.h"
#include "vmm/host/pty.h"

namespace snug {
namespace {

// How soon a pty's new window size is seen: nobody is told of it at this end.
constexpr std::chrono::seconds kSizePeriod{1};

// preadv2(2), pwritev2(2): as readv and writev, which would be two more calls to allow (vmm/jail).
constexpr off_t kNoOffset = -1;

bool somebody_listens(const sockaddr_un& address) {
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const auto* where = reinterpret_cast<const sockaddr*>(&address);
  // EAGAIN: its queue is full.
  return ::connect(probe.get(), where, sizeof address) == 0 || errno == EAGAIN;
}

}  // namespace

Result<std::unique_ptr<HostPort>> HostPort::open(const PortSpec& spec, EventLoop& loop) {
  std::unique_ptr<HostPort> port(new HostPort(loop));
  switch (spec.kind) {
    case PortKind::kPty:
      SNUG_TRY(port->open_pty());
      break;
    case PortKind::kFile:
      SNUG_TRY(port->open_output(spec.path));
      break;
    case PortKind::kSocket:
      SNUG_TRY(port->listen(spec.path));
      break;
  }
  return port;
}

HostPort::~HostPort() {
  if (!socket_path_.empty()) ::unlink(socket_path_.c_str());
}

Result<void> HostPort::open_pty() {
  Pty pty = SNUG_TRY(snug::open_pty());
  peer_ = std::move(pty.master);
  pty_slave_ = std::move(pty.slave);
  pty_path_ = std::move(pty.path);
  size_timer_ = SNUG_TRY(loop_.timer([this] {
    look_at_size();
    size_timer_.arm(kSizePeriod);
  }));
  size_timer_.arm(kSizePeriod);
  return watch_peer();
}

Result<void> HostPort::open_output(const std::string& path) {
  peer_ = SNUG_TRY(open_file(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK, 0644));
  is_file_ = true;
  // Regular files take everything, and epoll refuses them.
  (void)watch_peer();
  return {};
}

Result<void> HostPort::listen(const std::string& path) {
  const sockaddr_un address = SNUG_TRY(socket_address(path));
  listener_ = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener_) return fail_errno(errno, "socket");
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0) {
    if (!S_ISSOCK(status.st_mode)) return fail("{} exists and is no socket", path);
    if (somebody_listens(address))
      return fail_with_hint(path + ": another process listens there", "use another path");
    // One that a killed process has left behind.
    ::unlink(path.c_str());
  }
  if (::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(errno, "bind {}", path);
  socket_path_ = path;
  // Before anybody can connect.
  if (::chmod(path.c_str(), 0600) != 0) return fail_errno(errno, "chmod {}", path);
  if (::listen(listener_.get(), 8) != 0) return fail_errno(errno, "listen on {}", path);
  return watch_listener();
}

// --- who is there -----------------------------------------------------------------------------------

void HostPort::on_events(Events events) {
  events_ = std::move(events);
  if (!pty_path_.empty()) look_at_size();
}

Result<void> HostPort::watch_listener() {
  if (listener_watch_ || !listener_) return {};
  listener_watch_ = SNUG_TRY(loop_.watch(listener_.get(), EPOLLIN, [this](uint32_t) { accept(); }));
  return {};
}

// Edge-triggered: whoever reads or writes goes on until there is no more.
Result<void> HostPort::watch_peer() {
  peer_watch_ = SNUG_TRY(loop_.watch(peer_.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                     [this](uint32_t events) { on_peer_event(events); }));
  return {};
}

void HostPort::accept() {
  UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!client) return;
  // The one before has hung up, or nobody would be listened for.
  const bool known = connected();
  hang_up();
  if (known) tell();
  listener_watch_.reset();
  {
    const std::lock_guard lock(mutex_);
    peer_ = std::move(client);
    broken_ = false;
  }
  if (auto watched = watch_peer(); !watched) {
    log_warn("{}: {}", socket_path_, watched.error().text());
    hang_up();
    return;
  }
  tell();
}

void HostPort::on_peer_event(uint32_t epoll_events) {
  if (!pty_path_.empty()) look_at_size();
  tell();
  if ((epoll_events & (EPOLLHUP | EPOLLERR)) == 0 || !listener_) return;
  if (connected() && !at_end()) {
    if (auto watched = watch_listener(); !watched) log_warn("{}: {}", socket_path_, watched.error().text());
    return;
  }
  hang_up();
  tell();
}

// Whether all that the peer sent has been read.
bool HostPort::at_end() const {
  const std::lock_guard lock(mutex_);
  char byte = 0;
  return receive_some(peer_.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

void HostPort::hang_up() {
  peer_watch_.reset();
  {
    const std::lock_guard lock(mutex_);
    peer_.reset();
  }
  if (auto watched = watch_listener(); !watched) log_warn("{}: {}", socket_path_, watched.error().text());
}

void HostPort::tell() const {
  if (events_.ready) events_.ready();
}

void HostPort::look_at_size() {
  winsize size{};
  if (::ioctl(peer_.get(), TIOCGWINSZ, &size) == 0 && events_.resized)
    events_.resized({.columns = size.ws_col, .rows = size.ws_row});
}

// --- bytes ------------------------------------------------------------------------------------------

bool HostPort::connected() const {
  const std::lock_guard lock(mutex_);
  return static_cast<bool>(peer_) && !broken_;
}

size_t HostPort::send(std::span<const iovec> parts) {
  const std::lock_guard lock(mutex_);
  if (!peer_) return 0;
  for (;;) {
    ssize_t count = -1;
    if (listener_) {
      // A peer that went away is no SIGPIPE.
      msghdr message{};
      message.msg_iov = const_cast<iovec*>(parts.data());
      message.msg_iovlen = parts.size();
      count = ::sendmsg(peer_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } else {
      // The console's emergency register is written to on a vCPU's thread, which may not do the latter.
      count = parts.size() == 1
                  ? ::write(peer_.get(), parts.front().iov_base, parts.front().iov_len)
                  : ::pwritev2(peer_.get(), parts.data(), static_cast<int>(parts.size()), kNoOffset, 0);
    }
    if (count >= 0) return static_cast<size_t>(count);
    if (errno == EINTR) continue;
    if (errno != EAGAIN) broken_ = true;
    return 0;
  }
}

size_t HostPort::receive(std::span<const iovec> parts) {
  if (is_file_) return 0;
  for (;;) {
    const ssize_t count = ::preadv2(peer_.get(), parts.data(), static_cast<int>(parts.size()), kNoOffset, 0);
    if (count > 0) return static_cast<size_t>(count);
    if (count < 0 && errno == EINTR) continue;
    // The end of what a client sends is the end of its connection.
    if (listener_ && (count == 0 || errno != EAGAIN)) hang_up();
    return 0;
  }
}

}  // namespace snug
