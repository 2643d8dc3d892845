// Ownership of a file descriptor. Movable, closes on destruction. Any thread.
#pragma once

#include <unistd.h>

#include <string>
#include <utility>

#include "vmm/base/result.h"

namespace snug {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = other.release();
    }
    return *this;
  }
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
};

// open(2) with O_CLOEXEC added. Errors: "open PATH: reason".
Result<UniqueFd> open_file(const std::string& path, int flags, unsigned mode = 0);

// A second, close-on-exec descriptor for the same open file.
Result<UniqueFd> duplicate(int fd);

// A non-blocking eventfd with the given initial count.
Result<UniqueFd> make_eventfd();

// A non-blocking descriptor for what `fd` has open, without touching the flags that other processes share
// with us: reopened through /proc where that works (pipes, ttys), else a plain duplicate: regular files,
// which never block, and sockets, which may (the caller polls first and writes at most PIPE_BUF bytes).
Result<UniqueFd> reopen_nonblocking(int fd, int access_mode);

// Closes what this program was started with, but for its standard streams: all that is open without
// close-on-exec, for nothing that it opens itself is. Errors: /proc cannot be read.
Result<void> close_inherited();

}  // namespace snug
