#include "vmm/images/layer_stream.h"

#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "vmm/images/image_fault.h"

namespace snug::images {

namespace {

using namespace std::string_view_literals;

constexpr size_t kPiece = 256 * 1024;

tl::unexpected<Error> broken(std::string_view how) {
  return tl::unexpected(
      refused(Fault::kBrokenCompression, {}, fmt::format("the layer's compressed data {}", how)));
}

class PlainStream final : public LayerStream {
 public:
  explicit PlainStream(StoredBytes stored) : LayerStream(std::move(stored)) {}
  Result<std::span<const std::byte>> next() override {
    stored_.take(given_);
    const auto bytes = SNUG_TRY(stored_.peek());
    given_ = bytes.size();
    return bytes;
  }

 private:
  size_t given_ = 0;
};

class GzipStream final : public LayerStream {
 public:
  explicit GzipStream(StoredBytes stored) : LayerStream(std::move(stored)), out_(kPiece) {}
  ~GzipStream() override {
    if (ready_) ::inflateEnd(&state_);
  }
  Result<std::span<const std::byte>> next() override;

 private:
  Result<bool> another_member();
  z_stream state_{};
  bool ready_ = false;
  bool in_member_ = false;
  std::vector<std::byte> out_;
};

// Behind a member comes another one, or nothing, or zeros up to the end (of a tape's block).
Result<bool> GzipStream::another_member() {
  for (bool padding = false;;) {
    const auto bytes = SNUG_TRY(stored_.peek());
    if (bytes.empty()) return false;
    if (!padding && ready_ && bytes[0] != std::byte{0}) break;
    if (!ready_) break;
    padding = true;
    if (std::any_of(bytes.begin(), bytes.end(), [](std::byte b) { return b != std::byte{0}; }))
      return broken("is followed by something else");
    stored_.take(bytes.size());
  }
  const int status = ready_ ? ::inflateReset(&state_) : ::inflateInit2(&state_, 15 + 16);
  if (status != Z_OK) return fail("gzip: out of memory");
  ready_ = true;
  return true;
}

Result<std::span<const std::byte>> GzipStream::next() {
  state_.next_out = reinterpret_cast<Bytef*>(out_.data());
  state_.avail_out = static_cast<uInt>(out_.size());
  while (state_.avail_out == out_.size()) {
    if (!in_member_) {
      if (!SNUG_TRY(another_member())) return std::span<const std::byte>{};
      state_.next_out = reinterpret_cast<Bytef*>(out_.data());
      state_.avail_out = static_cast<uInt>(out_.size());
      in_member_ = true;
    }
    const auto bytes = SNUG_TRY(stored_.peek());
    if (bytes.empty()) return broken("ends too early");
    state_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data()));
    state_.avail_in = static_cast<uInt>(bytes.size());
    const int status = ::inflate(&state_, Z_NO_FLUSH);
    stored_.take(bytes.size() - state_.avail_in);
    if (status == Z_STREAM_END)
      in_member_ = false;
    else if (status != Z_OK)
      return broken(fmt::format("is broken (gzip: {})", state_.msg != nullptr ? state_.msg : "no progress"));
  }
  return std::span<const std::byte>(out_.data(), out_.size() - state_.avail_out);
}

class ZstdStream final : public LayerStream {
 public:
  explicit ZstdStream(StoredBytes stored)
      : LayerStream(std::move(stored)), context_(::ZSTD_createDCtx()), out_(kPiece) {}
  ~ZstdStream() override { ::ZSTD_freeDCtx(context_); }
  Result<std::span<const std::byte>> next() override {
    if (context_ == nullptr) return fail("zstd: out of memory");
    ZSTD_outBuffer out{out_.data(), out_.size(), 0};
    while (out.pos == 0) {
      const auto bytes = SNUG_TRY(stored_.peek());
      if (bytes.empty() && !in_frame_) return bytes;
      ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
      const size_t left = ::ZSTD_decompressStream(context_, &out, &in);
      if (::ZSTD_isError(left) != 0)
        return broken(fmt::format("is broken (zstd: {})", ::ZSTD_getErrorName(left)));
      if (bytes.empty() && out.pos == 0) return broken("ends too early");
      stored_.take(in.pos);
      in_frame_ = left != 0;
    }
    return std::span<const std::byte>(out_.data(), out.pos);
  }

 private:
  ZSTD_DCtx* context_;
  bool in_frame_ = false;
  std::vector<std::byte> out_;
};

struct Signature {
  std::string_view bytes;
  std::string_view name;
};
// What some tools make and container engines do not read.
constexpr Signature kForeign[] = {{"BZh"sv, "bzip2"},
                                  {"\xfd"
                                   "7zXZ\0"sv,
                                   "xz"},
                                  {"\x04\x22\x4d\x18"sv, "LZ4"},
                                  {"PK\3\4"sv, "zip"},
                                  {"\x5d\0\0"sv, "lzma"}};

}  // namespace

Result<void> StoredBytes::fill() {
  if (start_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + start_, end_ - start_);
    end_ -= start_;
    start_ = 0;
  }
  for (;;) {
    const ssize_t got = ::read(fd_, buffer_.data() + end_, buffer_.size() - end_);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(errno, "reading the layer");
    if (hashing_ == Hashing::kYes) hash_.add(std::span(buffer_).subspan(end_, static_cast<size_t>(got)));
    end_ += static_cast<size_t>(got);
    at_end_ = got == 0;
    return {};
  }
}

Result<std::span<const std::byte>> StoredBytes::peek() { return peek_at_least(1); }

Result<std::span<const std::byte>> StoredBytes::peek_at_least(size_t count) {
  while (end_ - start_ < count && !at_end_) SNUG_TRY(fill());
  return std::span<const std::byte>(buffer_.data() + start_, end_ - start_);
}

Result<std::string> StoredBytes::digest() {
  while (!at_end_) {
    start_ = end_ = 0;
    SNUG_TRY(fill());
  }
  return "sha256:" + hash_.hex_digest();
}

void StoredBytes::take(size_t count) {
  start_ += count;
  taken_ += count;
}

Result<std::unique_ptr<LayerStream>> LayerStream::open(int fd, Hashing hashing) {
  StoredBytes stored(fd, hashing);
  const auto bytes = SNUG_TRY(stored.peek_at_least(16));
  const std::string_view head(reinterpret_cast<const char*>(bytes.data()),
                              std::min<size_t>(bytes.size(), 16));
  using Stream = std::unique_ptr<LayerStream>;
  if (head.starts_with("\x1f\x8b"sv)) return Stream(std::make_unique<GzipStream>(std::move(stored)));
  // A frame, or one to be skipped in front of it.
  if (head.starts_with("\x28\xb5\x2f\xfd"sv) || (head.size() > 4 && head.substr(1, 3) == "\x2a\x4d\x18"sv &&
                                                 (static_cast<unsigned char>(head[0]) & 0xf0) == 0x50))
    return Stream(std::make_unique<ZstdStream>(std::move(stored)));
  for (const Signature& foreign : kForeign)
    if (head.starts_with(foreign.bytes))
      return tl::unexpected(
          refused(Fault::kUnknownCompression, {}, fmt::format("the layer is packed with {}", foreign.name)));
  return Stream(std::make_unique<PlainStream>(std::move(stored)));
}

}  // namespace snug::images
