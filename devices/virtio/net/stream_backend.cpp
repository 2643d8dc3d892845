#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "devices/virtio/net/backend.h"
#include "vmm/base/log.h"
#include "vmm/base/socket_io.h"

namespace snug {
namespace {

constexpr size_t kPrefix = 4;
constexpr size_t kInputSize = size_t{256} << 10;  // several of the longest frames
constexpr size_t kFramesMax = 64;                 // in one system call
constexpr size_t kPartsMax = 1024;                // UIO_MAXIOV

uint32_t load_be32(const std::byte* at) {
  uint32_t value = 0;
  for (size_t i = 0; i < kPrefix; ++i) value = value << 8 | std::to_integer<uint32_t>(at[i]);
  return value;
}

std::array<std::byte, kPrefix> prefix_of(uint32_t length) {
  return {std::byte(length >> 24), std::byte(length >> 16), std::byte(length >> 8), std::byte(length)};
}

class StreamBackend final : public NetBackend {
 public:
  explicit StreamBackend(UniqueFd socket) : socket_(std::move(socket)) {}
  // Goes on where another has left off.
  StreamBackend(UniqueFd socket, std::span<const std::byte> half_way);

  uint64_t offloads() const override { return 0; }
  void start(uint64_t) override {
    if (std::exchange(goes_on_, false)) return;
    // Whole frames only: the stream goes on where it is. (Bounded: more may come all the time.)
    for (int i = 0; i < 10'000 && next(0); ++i) take(0);
  }
  size_t send(uint16_t pair, std::span<const OutFrame> frames) override;
  void flush(uint16_t) override {
    if (!broken_) (void)flush_rest();
  }
  std::optional<InFrame> next(uint16_t pair) override;
  void take(uint16_t pair) override;
  int fd(uint16_t) const override { return socket_.get(); }
  bool broken() const override { return broken_; }
  std::vector<std::byte> half_way() const override;

 private:
  bool flush_rest();
  bool fill();
  void give_up(const std::string& why);

  UniqueFd socket_;
  bool broken_ = false;
  bool goes_on_ = false;  // what comes in first is the driver's, which has been there before
  std::vector<iovec> parts_;
  std::vector<std::byte> rest_;  // of a frame that the socket took a part of
  size_t rest_sent_ = 0;
  // Left as it is: memory is taken as far as the stream has filled it.
  std::unique_ptr<std::byte[]> input_ = std::make_unique_for_overwrite<std::byte[]>(kInputSize);
  size_t begin_ = 0, end_ = 0;  // what is filled of it
};

// How many bytes are to go out, as a 32-bit big-endian number, and those; then what has come in.
std::vector<std::byte> StreamBackend::half_way() const {
  const auto out = std::span(rest_).subspan(rest_sent_);
  const std::span in(input_.get() + begin_, end_ - begin_);
  std::vector<std::byte> held(kPrefix + out.size() + in.size());
  auto to = std::ranges::copy(prefix_of(static_cast<uint32_t>(out.size())), held.begin()).out;
  to = std::ranges::copy(out, to).out;
  std::ranges::copy(in, to);
  return held;
}

// Another process wrote it: what does not fit is none.
StreamBackend::StreamBackend(UniqueFd socket, std::span<const std::byte> half_way)
    : socket_(std::move(socket)), goes_on_(true) {
  if (half_way.size() < kPrefix) return;
  const size_t out = load_be32(half_way.data());
  half_way = half_way.subspan(kPrefix);
  if (out > half_way.size() || half_way.size() - out > kInputSize) {
    give_up("what the process before has left of it cannot be read");
    return;
  }
  rest_.assign(half_way.begin(), half_way.begin() + static_cast<ptrdiff_t>(out));
  std::copy(half_way.begin() + static_cast<ptrdiff_t>(out), half_way.end(), input_.get());
  end_ = half_way.size() - out;
}

void StreamBackend::give_up(const std::string& why) {
  if (!broken_) log_debug("network stream: {}", why);
  broken_ = true;
}

// False: no room for now.
bool StreamBackend::flush_rest() {
  while (rest_sent_ < rest_.size()) {
    const ssize_t count =
        send_some(socket_.get(), rest_.data() + rest_sent_, rest_.size() - rest_sent_, MSG_DONTWAIT);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return false;
    if (count < 0) {
      give_up(errno_text(errno));
      break;
    }
    rest_sent_ += static_cast<size_t>(count);
  }
  rest_.clear();
  rest_sent_ = 0;
  return true;
}

size_t StreamBackend::send(uint16_t, std::span<const OutFrame> frames) {
  if (!broken_ && !flush_rest()) return 0;
  if (broken_) return frames.size();
  std::array<std::array<std::byte, kPrefix>, kFramesMax> prefixes;
  parts_.clear();
  size_t count = 0;
  for (const OutFrame& frame : frames) {
    if (count == kFramesMax || parts_.size() + 1 + frame.parts.size() > kPartsMax) break;
    prefixes[count] = prefix_of(frame.length);
    parts_.push_back({prefixes[count].data(), kPrefix});
    for (const iovec& part : frame.parts) parts_.push_back(part);
    ++count;
  }
  msghdr message{};
  message.msg_iov = parts_.data();
  message.msg_iovlen = parts_.size();
  ssize_t sent = -1;
  do {
    sent = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0 && errno == EAGAIN) return 0;
  if (sent < 0) {
    give_up(errno_text(errno));
    return frames.size();
  }
  // Whole frames, and of the one that was cut the rest, which must follow before anything else.
  auto left = static_cast<size_t>(sent);
  size_t part = 0;
  for (size_t i = 0; i < count; ++i) {
    const size_t size = kPrefix + frames[i].length;
    if (left >= size) {
      left -= size;
      part += 1 + frames[i].parts.size();
      continue;
    }
    if (left == 0) return i;
    for (const size_t end = part + 1 + frames[i].parts.size(); part < end; ++part) {
      const auto* bytes = static_cast<const std::byte*>(parts_[part].iov_base);
      const size_t skip = std::min(left, parts_[part].iov_len);
      rest_.insert(rest_.end(), bytes + skip, bytes + parts_[part].iov_len);
      left -= skip;
    }
    return i + 1;
  }
  return count;
}

// Reads more behind what is there. False: nothing came.
bool StreamBackend::fill() {
  if (broken_) return false;
  if (begin_ > 0) {
    std::copy(input_.get() + begin_, input_.get() + end_, input_.get());
    end_ -= begin_;
    begin_ = 0;
  }
  ssize_t count = -1;
  do {
    count = receive_some(socket_.get(), input_.get() + end_, kInputSize - end_, MSG_DONTWAIT);
  } while (count < 0 && errno == EINTR);
  if (count > 0) {
    end_ += static_cast<size_t>(count);
    return true;
  }
  if (count == 0) give_up("the other side has closed it");
  if (count < 0 && errno != EAGAIN) give_up(errno_text(errno));
  return false;
}

std::optional<InFrame> StreamBackend::next(uint16_t) {
  for (;;) {
    const size_t there = end_ - begin_;
    if (there >= kPrefix) {
      const uint32_t length = load_be32(input_.get() + begin_);
      if (length < kFrameMin || length > kFrameMax) {
        give_up(fmt::format("a frame of {} bytes", length));
        begin_ = end_ = 0;
        return std::nullopt;
      }
      if (there >= kPrefix + length) {
        // It came from a process on this host: nothing on the way could have damaged it.
        return InFrame{{.flags = kNetChecksumGood},
                       std::span<const std::byte>(input_.get() + begin_ + kPrefix, length)};
      }
    }
    if (!fill()) return std::nullopt;
  }
}

void StreamBackend::take(uint16_t) {
  begin_ += kPrefix + load_be32(input_.get() + begin_);
  if (begin_ == end_) begin_ = end_ = 0;
}

}  // namespace

std::unique_ptr<NetBackend> make_stream_backend(UniqueFd socket) {
  return std::make_unique<StreamBackend>(std::move(socket));
}

std::unique_ptr<NetBackend> continue_stream_backend(UniqueFd socket, std::span<const std::byte> half_way) {
  return std::make_unique<StreamBackend>(std::move(socket), half_way);
}

}  // namespace snug
