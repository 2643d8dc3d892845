#include "vmm/protocol/frames.h"

namespace snug::protocol {

void put_frame(std::string& out, FrameType type, std::string_view payload, uint8_t channel) {
  Encoder header;
  header.u32(static_cast<uint32_t>(payload.size())).u8(static_cast<uint8_t>(type)).u8(channel).u16(0);
  out += header.bytes();
  out += payload;
}

void FrameReader::feed(std::string_view bytes) {
  buffer_.erase(0, begin_);
  begin_ = 0;
  buffer_ += bytes;
}

std::optional<Frame> FrameReader::next() {
  const std::string_view rest = std::string_view(buffer_).substr(begin_);
  if (broken_ || rest.size() < kHeaderSize) return std::nullopt;
  Decoder header(rest.substr(0, kHeaderSize));
  const size_t length = header.u32();
  Frame frame;
  frame.type = static_cast<FrameType>(header.u8());
  frame.channel = header.u8();
  if (length > kMaxPayload || header.u16() != 0) {
    broken_ = true;
    return std::nullopt;
  }
  if (rest.size() - kHeaderSize < length) return std::nullopt;
  frame.payload = rest.substr(kHeaderSize, length);
  begin_ += kHeaderSize + length;
  return frame;
}

Encoder& Encoder::number(uint64_t value, size_t size) {
  for (size_t i = 0; i < size; ++i) bytes_ += static_cast<char>(value >> (8 * i) & 0xff);
  return *this;
}

Encoder& Encoder::text(std::string_view value) {
  u32(static_cast<uint32_t>(value.size()));
  return rest(value);
}

Encoder& Encoder::rest(std::string_view value) {
  bytes_ += value;
  return *this;
}

uint64_t Decoder::number(size_t size) {
  if (bytes_.size() < size) {
    missing_ = true;
    bytes_ = {};
    return 0;
  }
  uint64_t value = 0;
  for (size_t i = 0; i < size; ++i)
    value |= static_cast<uint64_t>(static_cast<unsigned char>(bytes_[i])) << (8 * i);
  bytes_.remove_prefix(size);
  return value;
}

std::string_view Decoder::text() {
  const size_t length = u32();
  if (bytes_.size() < length) {
    missing_ = true;
    bytes_ = {};
    return {};
  }
  const std::string_view value = bytes_.substr(0, length);
  bytes_.remove_prefix(length);
  return value;
}

std::string_view Decoder::rest() {
  const std::string_view value = bytes_;
  bytes_ = {};
  return value;
}

}  // namespace snug::protocol
