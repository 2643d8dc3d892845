// One connection to the client at the other end: frames in and out over a stream socket. A session's only
// thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "vmm/protocol/messages.h"

namespace snug::agent {

// Closes its descriptor; -1 is none.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept;
  ~Fd() { reset(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release();
  void reset();

 private:
  int fd_ = -1;
};

void set_nonblocking(int fd, bool on);

class Connection {
 public:
  // `fd` is made non-blocking.
  explicit Connection(Fd fd);

  int fd() const { return fd_.get(); }
  // What waits to be sent: add to it, then flush() or wait for room.
  std::string& out() { return out_; }
  // Sends what goes without waiting. False: the peer is gone.
  bool flush();
  // Waits until all is sent. False: the peer is gone.
  bool flush_all();
  // Reads what is there without waiting, at most 64 KiB. False: the peer has closed or is gone.
  bool receive();
  // A frame that has been received; nothing: none is whole yet, or the stream is broken.
  std::optional<protocol::Frame> next() { return reader_.next(); }
  bool broken() const { return reader_.broken(); }
  // Waits for the next frame, while sending. Nothing: the peer is gone, or speaks something else.
  std::optional<protocol::Frame> wait_next();
  // Sends what is left, says that no more comes, and waits for the peer to close: a socket closed with bytes
  // unread could take away from the peer what was sent. False: it is gone, or did not close.
  bool finish();

 private:
  Fd fd_;
  std::string out_;
  protocol::FrameReader reader_;
};

}  // namespace snug::agent
