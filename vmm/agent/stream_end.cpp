#include "vmm/agent/stream_end.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "vmm/base/file_status.h"
#include "vmm/base/socket_io.h"
#include "vmm/protocol/frames.h"

namespace snug {

OutputEnd::OutputEnd(EventLoop& loop, UniqueFd fd, Events events)
    : loop_(loop), fd_(std::move(fd)), events_(std::move(events)), lost_(!fd_) {
  struct stat status {};
  if (!fd_ || !file_status(fd_.get(), status)) return;
  if (S_ISREG(status.st_mode)) {
    kind_ = Kind::kFile;
  } else if (S_ISSOCK(status.st_mode)) {
    kind_ = Kind::kSocket;
  } else if ((::fcntl(fd_.get(), F_GETFL) & O_NONBLOCK) != 0) {
    kind_ = Kind::kNonblocking;
  }
}

void OutputEnd::write(std::string_view bytes) {
  if (lost_) return;
  held_ += bytes;
  if (!watch_) post();
}

void OutputEnd::post() {
  if (posted_) return;
  posted_ = true;
  loop_.post([this, alive = std::weak_ptr<int>(alive_)] {
    if (alive.expired()) return;
    posted_ = false;
    flush();
  });
}

ssize_t OutputEnd::write_some() {
  switch (kind_) {
    case Kind::kFile:
    case Kind::kNonblocking:
      return ::write(fd_.get(), held_.data(), held_.size());
    case Kind::kSocket:
      return send_some(fd_.get(), held_.data(), held_.size(), MSG_DONTWAIT);
    case Kind::kBlocking:
      break;
  }
  // A write of PIPE_BUF bytes to what poll calls writable does not block.
  pollfd request{.fd = fd_.get(), .events = POLLOUT, .revents = 0};
  if (::poll(&request, 1, 0) <= 0) {
    errno = EAGAIN;
    return -1;
  }
  return ::write(fd_.get(), held_.data(), std::min<size_t>(held_.size(), PIPE_BUF));
}

// One write for each turn of the loop.
void OutputEnd::flush() {
  watch_.reset();
  if (held_.empty() || lost_) return;
  const ssize_t count = write_some();
  if (count < 0 && errno == EAGAIN) {
    auto watch = loop_.watch(fd_.get(), EPOLLOUT, [this](uint32_t) { flush(); });
    if (watch) {
      watch_ = std::move(*watch);
      return;
    }
  }
  if (count < 0 && errno == EINTR) return post();
  if (count < 0) {
    const int error = errno;
    lost_ = true;
    held_.clear();
    return events_.lost(error);
  }
  held_.erase(0, static_cast<size_t>(count));
  if (!held_.empty()) post();
  events_.written(static_cast<size_t>(count));
}

InputEnd::InputEnd(EventLoop& loop, UniqueFd fd, Events events)
    : loop_(loop), fd_(std::move(fd)), events_(std::move(events)) {}

void InputEnd::update() {
  if (ended_) return;
  if (events_.room() == 0) return watch_.reset();
  if (!fd_) return post();
  if (watch_) return;
  if (!pollable_) return post();
  auto watch = loop_.watch(fd_.get(), EPOLLIN, [this](uint32_t) { read_some(); });
  if (watch) {
    watch_ = std::move(*watch);
    return;
  }
  // epoll refuses regular files: they are always readable.
  pollable_ = false;
  post();
}

void InputEnd::stop() {
  ended_ = true;
  watch_.reset();
}

void InputEnd::post() {
  if (posted_) return;
  posted_ = true;
  loop_.post([this, alive = std::weak_ptr<int>(alive_)] {
    if (alive.expired()) return;
    posted_ = false;
    read_some();
    update();
  });
}

void InputEnd::read_some() {
  const size_t room = std::min(events_.room(), protocol::kDataChunk);
  if (ended_ || room == 0) return;
  std::vector<char> buffer(room);
  const ssize_t count = fd_ ? ::read(fd_.get(), buffer.data(), room) : 0;
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) {
    const int error = errno;
    stop();
    // A terminal that went away has no more to say.
    const bool failed = count < 0 && !(error == EIO && ::isatty(fd_.get()) == 1);
    return failed ? events_.failed(error) : events_.ended();
  }
  events_.bytes({buffer.data(), static_cast<size_t>(count)});
  update();
}

}  // namespace snug
