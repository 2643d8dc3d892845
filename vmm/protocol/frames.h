// Frames of the protocol between snug and the agent in the guest (guest-images/agent/PROTOCOL.md). Shared by
// both ends: nothing here logs, throws or needs a library. No threads, no I/O.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace snug::protocol {

// vsock ports. Below 1024, where only privileged programs of the guest may listen.
constexpr uint32_t kAgentPort = 1000;  // the guest's agent listens there
constexpr uint32_t kCallPort = 1000;   // the host's: the agent calls it once, when it is ready
// Both in their place, of a guest's first program that has left what is one run's own, and waits to be told
// to begin with that.
constexpr uint32_t kWaitingPort = 1001;
// The guest's: a command that was kept waits there for who takes it up.
constexpr uint32_t kKeptPort = 1002;

// Commands are the same in all; copies are another thing since 2, shares are mounted since 3, guests go on
// after a snapshot since 4, begin when they are told since 5, and commands go on with them,
// which get addresses of their own, since 6; what begins is told words since 7.
constexpr uint16_t kOldestVersion = 1;
constexpr uint16_t kVersion = 7;
constexpr uint16_t kCopyVersion = 2;
constexpr uint16_t kMountVersion = 3;
constexpr uint16_t kGoOnVersion = 4;
constexpr uint16_t kBeginVersion = 5;
constexpr uint16_t kKeepVersion = 6;
constexpr uint16_t kWordsVersion = 7;

constexpr size_t kHeaderSize = 8;
constexpr size_t kMaxPayload = 128 * 1024;  // what Linux allows one argument of a program to have
constexpr size_t kDataChunk = 64 * 1024;    // senders put no more into a data frame
constexpr uint32_t kWindow = 256 * 1024;    // bytes of a channel that may be under way unacknowledged

enum class FrameType : uint8_t {
  kHello = 1,
  kError = 2,
  kDone = 3,
  kPing = 4,
  kArgument = 16,
  kVariable = 17,
  kExec = 18,
  kStarted = 19,
  kData = 20,
  kEnd = 21,
  kCredit = 22,
  kDrop = 23,
  kSignal = 24,
  kResize = 25,
  kExit = 26,
  kKeep = 27,
  kTakeUp = 28,
  kPut = 32,
  kGet = 33,
  kEntry = 34,
  kFileEnd = 35,
  kHole = 36,
  kLeave = 37,
  kProblem = 38,
  kSetTime = 48,
  kPower = 49,
  kMount = 50,
  kGoOn = 51,
  kBegin = 52,
  kReaddress = 53,
};

// Channels of a command, as its descriptors are numbered; and that of a copy.
constexpr uint8_t kInput = 0;
constexpr uint8_t kOutput = 1;
constexpr uint8_t kErrors = 2;
constexpr uint8_t kCopy = 3;

struct Frame {
  FrameType type = FrameType::kError;
  uint8_t channel = 0;
  std::string_view payload;  // valid until the reader is fed again
};

// Appends a frame to `out`. `payload`: at most kMaxPayload.
void put_frame(std::string& out, FrameType type, std::string_view payload = {}, uint8_t channel = 0);

// Cuts a stream of bytes into frames. Holds at most one unfinished frame beyond what it was last fed.
class FrameReader {
 public:
  void feed(std::string_view bytes);
  // The next whole frame; nothing: more bytes are needed, or the stream is broken.
  std::optional<Frame> next();
  // A header that no frame can have: nothing behind it can be understood.
  bool broken() const { return broken_; }

 private:
  std::string buffer_;
  size_t begin_ = 0;
  bool broken_ = false;
};

// Writes the fields of a payload, one behind the other, little-endian.
class Encoder {
 public:
  Encoder& u8(uint8_t value) { return number(value, 1); }
  Encoder& u16(uint16_t value) { return number(value, 2); }
  Encoder& u32(uint32_t value) { return number(value, 4); }
  Encoder& u64(uint64_t value) { return number(value, 8); }
  // A length and the bytes.
  Encoder& text(std::string_view value);
  Encoder& rest(std::string_view value);
  const std::string& bytes() const { return bytes_; }

 private:
  Encoder& number(uint64_t value, size_t size);
  std::string bytes_;
};

// Reads them. A field that is not there reads as zero or empty and is remembered.
class Decoder {
 public:
  explicit Decoder(std::string_view bytes) : bytes_(bytes) {}
  uint8_t u8() { return static_cast<uint8_t>(number(1)); }
  uint16_t u16() { return static_cast<uint16_t>(number(2)); }
  uint32_t u32() { return static_cast<uint32_t>(number(4)); }
  uint64_t u64() { return number(8); }
  std::string_view text();
  std::string_view rest();
  // Whether every field was there and nothing follows them.
  bool complete() const { return !missing_ && bytes_.empty(); }

 private:
  uint64_t number(size_t size);
  std::string_view bytes_;
  bool missing_ = false;
};

}  // namespace snug::protocol
