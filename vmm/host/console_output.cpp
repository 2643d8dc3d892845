#include "vmm/host/console_output.h"

#include <limits.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "vmm/base/log.h"

namespace snug {
namespace {

constexpr size_t kLimit = 1 << 20;  // bytes buffered for a slow consumer

bool writable_now(int fd, int timeout_ms) {
  pollfd request{.fd = fd, .events = POLLOUT, .revents = 0};
  return ::poll(&request, 1, timeout_ms) > 0;
}

}  // namespace

void ConsoleOutput::open(UniqueFd fd) {
  fd_ = std::move(fd);
  discards_ = !fd_;
}

void ConsoleOutput::transmit(std::span<const std::byte> bytes) {
  auto buffer = buffer_.lock();
  buffer->tail.feed(bytes);
  if (discards_) return;
  if (buffer->bytes.size() + writing_size_ + bytes.size() > kLimit) {
    dropped_ += bytes.size();
    return;
  }
  buffer->bytes.insert(buffer->bytes.end(), bytes.begin(), bytes.end());
  if (buffer->flush_posted) return;
  buffer->flush_posted = true;
  loop_.post([this] { flush(); });
}

// One round, however fast the guest prints: others wait for the loop too.
void ConsoleOutput::flush() {
  if (written_ < writing_.size() && !write_some()) return;
  {
    auto buffer = buffer_.lock();
    writing_.clear();
    written_ = 0;
    std::swap(writing_, buffer->bytes);
    writing_size_ = writing_.size();
    // The next byte posts again; until then nothing is left to do.
    if (writing_.empty()) {
      buffer->flush_posted = false;
      return;
    }
  }
  if (write_some()) loop_.post([this] { flush(); });
}

bool ConsoleOutput::write_some() {
  while (written_ < writing_.size()) {
    if (!fd_ || lost_) {
      if (lost_) dropped_ += writing_.size() - written_;
      break;
    }
    // Where the descriptor could not be made non-blocking, a write of PIPE_BUF bytes to what poll calls
    // writable does not block.
    const size_t chunk = std::min<size_t>(writing_.size() - written_, PIPE_BUF);
    ssize_t count = -1;
    errno = EAGAIN;
    if (writable_now(fd_.get(), 0)) count = ::write(fd_.get(), writing_.data() + written_, chunk);
    if (count >= 0) {
      written_ += static_cast<size_t>(count);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) {
      lose(errno_text(errno));
      continue;
    }
    watch();
    return false;
  }
  writing_.clear();
  written_ = 0;
  writing_size_ = 0;
  return true;
}

// A watch lives only while something waits: epoll reports a hang-up whether it was asked for or not.
void ConsoleOutput::watch() {
  auto watching = loop_.watch(fd_.get(), EPOLLOUT, [this](uint32_t) {
    watch_.reset();
    flush();
  });
  if (watching) watch_ = std::move(*watching);
}

void ConsoleOutput::lose(const std::string& why) {
  lost_ = true;
  watch_.reset();
  log_warn("console output: {}; what the guest prints from here on is lost", why);
}

void ConsoleOutput::finish(std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (;;) {
    flush();
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (written_ >= writing_.size() && buffer_.lock()->bytes.empty()) break;
    if (left.count() <= 0) break;
    writable_now(fd_.get(), static_cast<int>(left.count()));
  }
  dropped_ += writing_.size() - written_ + buffer_.lock()->bytes.size();
  writing_.clear();
  written_ = 0;
  buffer_.lock()->bytes.clear();
  if (dropped_ > 0) log_warn("console output: {} bytes dropped because nobody took them", dropped_.load());
}

}  // namespace snug
