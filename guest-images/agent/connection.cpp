#include "guest-images/agent/connection.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cerrno>

#include <utility>
#include <vector>

namespace snug::agent {
namespace {

constexpr int kFinishMilliseconds = 10'000;

// False after an error or when `milliseconds` are over.
bool wait_for(int fd, short events, int milliseconds) {
  pollfd request{.fd = fd, .events = events, .revents = 0};
  int ready;
  do ready = ::poll(&request, 1, milliseconds);
  while (ready < 0 && errno == EINTR);
  return ready > 0;
}

}  // namespace

Fd& Fd::operator=(Fd&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = other.release();
  }
  return *this;
}

int Fd::release() { return std::exchange(fd_, -1); }

void Fd::reset() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

void set_nonblocking(int fd, bool on) {
  const int flags = ::fcntl(fd, F_GETFL);
  ::fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

Connection::Connection(Fd fd) : fd_(std::move(fd)) { set_nonblocking(fd_.get(), true); }

bool Connection::flush() {
  size_t sent = 0;
  bool alive = true;
  while (sent < out_.size()) {
    const ssize_t count = ::send(fd_.get(), out_.data() + sent, out_.size() - sent, MSG_NOSIGNAL);
    if (count >= 0) {
      sent += static_cast<size_t>(count);
      continue;
    }
    if (errno == EINTR) continue;
    alive = errno == EAGAIN;
    break;
  }
  out_.erase(0, sent);
  return alive;
}

bool Connection::flush_all() {
  for (;;) {
    if (!flush()) return false;
    if (out_.empty()) return true;
    if (!wait_for(fd_.get(), POLLOUT, -1)) return false;
  }
}

bool Connection::receive() {
  std::vector<char> buffer(64 * 1024);
  const ssize_t count = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
  if (count < 0) return errno == EAGAIN || errno == EINTR;
  reader_.feed({buffer.data(), static_cast<size_t>(count)});
  return count > 0;
}

std::optional<protocol::Frame> Connection::wait_next() {
  for (;;) {
    if (auto frame = reader_.next()) return frame;
    if (reader_.broken() || !flush_all()) return std::nullopt;
    if (!wait_for(fd_.get(), POLLIN, -1) || !receive()) return std::nullopt;
  }
}

bool Connection::finish() {
  if (!flush_all()) return false;
  ::shutdown(fd_.get(), SHUT_WR);
  std::vector<char> buffer(64 * 1024);
  while (wait_for(fd_.get(), POLLIN, kFinishMilliseconds)) {
    const ssize_t count = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
    if (count == 0) return true;
    if (count < 0 && errno != EAGAIN && errno != EINTR) return false;
  }
  return false;
}

}  // namespace snug::agent
