#include "vmm/protocol/messages.h"

#include <algorithm>

namespace snug::protocol {
namespace {

constexpr std::string_view kMagic = "SNUG";
constexpr uint8_t kFlagTty = 1;
constexpr uint8_t kFlagOwners = 1;
constexpr uint8_t kFlagReadonly = 1;
constexpr uint8_t kFlagFile = 2;

// The value when the decoder found exactly it.
template <class T>
std::optional<T> complete(const Decoder& decoder, T value) {
  if (!decoder.complete()) return std::nullopt;
  return value;
}

}  // namespace

void put_hello(std::string& out, const Hello& hello) {
  put_frame(out, FrameType::kHello, Encoder().rest(kMagic).u16(hello.lowest).u16(hello.highest).bytes());
}

std::optional<Hello> decode_hello(std::string_view payload) {
  if (!payload.starts_with(kMagic)) return std::nullopt;
  Decoder decoder(payload.substr(kMagic.size()));
  Hello hello;
  hello.lowest = decoder.u16();
  hello.highest = decoder.u16();
  if (hello.lowest > hello.highest) return std::nullopt;
  return complete(decoder, hello);
}

std::optional<uint16_t> common_version(const Hello& client) {
  const uint16_t highest = std::min(client.highest, kVersion);
  if (highest < std::max(client.lowest, kOldestVersion)) return std::nullopt;
  return highest;
}

std::optional<uint16_t> chosen_version(const Hello& answer) {
  if (answer.lowest != answer.highest) return std::nullopt;
  return common_version(answer);
}

void put_error(std::string& out, ErrorCode code, std::string_view text) {
  put_frame(out, FrameType::kError, Encoder().u8(static_cast<uint8_t>(code)).rest(text).bytes());
}

std::string printable(std::string_view text) {
  constexpr size_t kLongest = 1024;
  std::string shown;
  for (const char c : text.substr(0, kLongest))
    shown += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return shown;
}

ErrorMessage decode_error(std::string_view payload) {
  Decoder decoder(payload);
  ErrorMessage message;
  const uint8_t code = decoder.u8();
  if (code == 126 || code == 127) message.code = static_cast<ErrorCode>(code);
  message.text = printable(decoder.rest());
  if (message.text.empty()) message.text = "no reason given";
  return message;
}

void put_resize(std::string& out, WindowSize size) {
  put_frame(out, FrameType::kResize, Encoder().u16(size.rows).u16(size.columns).bytes());
}

std::optional<WindowSize> decode_resize(std::string_view payload) {
  Decoder decoder(payload);
  WindowSize size;
  size.rows = decoder.u16();
  size.columns = decoder.u16();
  return complete(decoder, size);
}

size_t exec_size(const ExecRequest& request) {
  size_t bytes = 0;
  for (const auto* list : {&request.arguments, &request.variables})
    for (const std::string& text : *list) bytes += text.size() + ExecRequest::kOverhead;
  return bytes;
}

bool put_exec(std::string& out, const ExecRequest& request) {
  if (exec_size(request) > ExecRequest::kMaxBytes) return false;
  for (const auto* list : {&request.arguments, &request.variables}) {
    for (const std::string& text : *list) {
      if (text.size() >= kMaxPayload) return false;
      put_frame(out, list == &request.arguments ? FrameType::kArgument : FrameType::kVariable, text);
    }
  }
  Encoder rest;
  rest.u8(request.tty ? kFlagTty : 0).u16(request.size.rows).u16(request.size.columns);
  rest.text(request.folder).text(request.user);
  if (rest.bytes().size() > kMaxPayload) return false;
  put_frame(out, FrameType::kExec, rest.bytes());
  return true;
}

ExecAssembler::Result ExecAssembler::take(const Frame& frame) {
  // A text with a zero in it would be cut short there by whoever uses it.
  const auto add = [&](std::vector<std::string>& list) {
    if (frame.payload.find('\0') != std::string_view::npos) return Result::kMalformed;
    bytes_ += frame.payload.size() + ExecRequest::kOverhead;
    if (bytes_ > ExecRequest::kMaxBytes || frame.payload.size() >= kMaxPayload) return Result::kTooLarge;
    list.emplace_back(frame.payload);
    return Result::kMore;
  };
  switch (frame.type) {
    case FrameType::kArgument:
      return add(request_.arguments);
    case FrameType::kVariable:
      if (frame.payload.find('=') == std::string_view::npos) return Result::kMalformed;
      return add(request_.variables);
    case FrameType::kExec: {
      Decoder decoder(frame.payload);
      const uint8_t flags = decoder.u8();
      request_.size.rows = decoder.u16();
      request_.size.columns = decoder.u16();
      request_.folder = decoder.text();
      request_.user = decoder.text();
      request_.tty = (flags & kFlagTty) != 0;
      const bool zeros = (request_.folder + request_.user).find('\0') != std::string::npos;
      const bool whole = decoder.complete() && !zeros && (flags & ~kFlagTty) == 0;
      return whole && !request_.arguments.empty() ? Result::kComplete : Result::kMalformed;
    }
    default:
      return Result::kMalformed;
  }
}

void put_exit(std::string& out, const ExitStatus& status) {
  put_frame(out, FrameType::kExit, Encoder().u8(status.signalled ? 1 : 0).u8(status.value).bytes());
}

std::optional<ExitStatus> decode_exit(std::string_view payload) {
  Decoder decoder(payload);
  const uint8_t kind = decoder.u8();
  ExitStatus status;
  status.signalled = kind == 1;
  status.value = decoder.u8();
  // 128 + 0 would be the status of no signal at all.
  if (kind > 1 || (status.signalled && (status.value == 0 || status.value > 64))) return std::nullopt;
  return complete(decoder, status);
}

void put_put(std::string& out, const PutRequest& request) {
  Encoder payload;
  payload.text(request.destination).text(request.name).u8(request.owners ? kFlagOwners : 0);
  put_frame(out, FrameType::kPut, payload.bytes());
}

std::optional<PutRequest> decode_put(std::string_view payload) {
  Decoder decoder(payload);
  PutRequest request;
  request.destination = decoder.text();
  request.name = decoder.text();
  const uint8_t flags = decoder.u8();
  request.owners = (flags & kFlagOwners) != 0;
  const bool zeros = (request.destination + request.name).find('\0') != std::string::npos;
  if (zeros || request.destination.empty() || (flags & ~kFlagOwners) != 0) return std::nullopt;
  return complete(decoder, std::move(request));
}

void put_get(std::string& out, std::string_view source) {
  put_frame(out, FrameType::kGet, Encoder().text(source).bytes());
}

std::optional<std::string> decode_get(std::string_view payload) {
  Decoder decoder(payload);
  std::string source(decoder.text());
  if (source.empty() || source.find('\0') != std::string::npos) return std::nullopt;
  return complete(decoder, std::move(source));
}

void put_power(std::string& out, PowerAction action) {
  put_frame(out, FrameType::kPower, Encoder().u8(static_cast<uint8_t>(action)).bytes());
}

std::optional<PowerAction> decode_power(std::string_view payload) {
  Decoder decoder(payload);
  const uint8_t action = decoder.u8();
  if (action > static_cast<uint8_t>(PowerAction::kReset)) return std::nullopt;
  return complete(decoder, static_cast<PowerAction>(action));
}

void put_set_time(std::string& out, uint64_t nanoseconds) {
  put_frame(out, FrameType::kSetTime, Encoder().u64(nanoseconds).bytes());
}

std::optional<uint64_t> decode_number64(std::string_view payload) {
  Decoder decoder(payload);
  const uint64_t value = decoder.u64();
  return complete(decoder, value);
}

void put_go_on(std::string& out, const GoOn& request) {
  Encoder payload;
  payload.u64(request.nanoseconds).text(request.seed).text(request.host_name);
  put_frame(out, FrameType::kGoOn, payload.bytes());
}

std::optional<GoOn> decode_go_on(std::string_view payload) {
  Decoder decoder(payload);
  GoOn request;
  request.nanoseconds = decoder.u64();
  request.seed = decoder.text();
  request.host_name = decoder.text();
  if (request.seed.size() != GoOn::kSeed || request.host_name.size() > GoOn::kNameMax ||
      request.host_name.find('\0') != std::string::npos)
    return std::nullopt;
  return complete(decoder, std::move(request));
}

void put_begin(std::string& out, const Begin& request) {
  Encoder payload;
  payload.u8(static_cast<uint8_t>(request.addresses.size()));
  for (const Begin::HardwareAddress& address : request.addresses)
    for (const uint8_t byte : address) payload.u8(byte);
  if (!request.words.empty()) payload.text(request.words);
  put_frame(out, FrameType::kBegin, payload.bytes());
}

std::optional<Begin> decode_begin(std::string_view payload) {
  Decoder decoder(payload);
  const uint8_t count = decoder.u8();
  if (count > Begin::kInterfacesMax) return std::nullopt;
  Begin request;
  request.addresses.resize(count);
  for (Begin::HardwareAddress& address : request.addresses)
    for (uint8_t& byte : address) byte = decoder.u8();
  if (!decoder.complete()) request.words = decoder.text();
  if (request.words.find('\0') != std::string::npos) return std::nullopt;
  return complete(decoder, std::move(request));
}

void put_readdress(std::string& out, const std::vector<AddressChange>& changes) {
  Encoder payload;
  payload.u8(static_cast<uint8_t>(changes.size()));
  for (const AddressChange& change : changes)
    for (const auto* address : {&change.from, &change.to})
      for (const uint8_t byte : *address) payload.u8(byte);
  put_frame(out, FrameType::kReaddress, payload.bytes());
}

std::optional<std::vector<AddressChange>> decode_readdress(std::string_view payload) {
  Decoder decoder(payload);
  const uint8_t count = decoder.u8();
  if (count > Begin::kInterfacesMax) return std::nullopt;
  std::vector<AddressChange> changes(count);
  for (AddressChange& change : changes)
    for (auto* address : {&change.from, &change.to})
      for (uint8_t& byte : *address) byte = decoder.u8();
  return complete(decoder, std::move(changes));
}

void put_mount(std::string& out, const MountRequest& request) {
  const int flags = (request.readonly ? kFlagReadonly : 0) | (request.file.empty() ? 0 : kFlagFile);
  Encoder payload;
  payload.text(request.tag).text(request.target).u8(static_cast<uint8_t>(flags)).text(request.file);
  put_frame(out, FrameType::kMount, payload.bytes());
}

std::optional<MountRequest> decode_mount(std::string_view payload) {
  Decoder decoder(payload);
  MountRequest request;
  request.tag = decoder.text();
  request.target = decoder.text();
  const uint8_t flags = decoder.u8();
  request.file = decoder.text();
  request.readonly = (flags & kFlagReadonly) != 0;
  const bool zeros = (request.tag + request.target + request.file).find('\0') != std::string::npos;
  // A name, not a path.
  const bool good_file =
      request.file.find('/') == std::string::npos && request.file != "." && request.file != "..";
  if (zeros || request.tag.empty() || !request.target.starts_with('/') || !good_file ||
      flags > (kFlagReadonly | kFlagFile) || ((flags & kFlagFile) != 0) == request.file.empty())
    return std::nullopt;
  return complete(decoder, std::move(request));
}

void put_number32(std::string& out, FrameType type, uint32_t value, uint8_t channel) {
  put_frame(out, type, Encoder().u32(value).bytes(), channel);
}

std::optional<uint32_t> decode_number32(std::string_view payload) {
  Decoder decoder(payload);
  const uint32_t value = decoder.u32();
  return complete(decoder, value);
}

bool SendWindow::granted(uint32_t count) {
  if (count > kWindow - available_) return false;
  available_ += count;
  return true;
}

bool ReceiveWindow::received(size_t count) {
  if (count > open_) return false;
  open_ -= static_cast<uint32_t>(count);
  return true;
}

uint32_t ReceiveWindow::consumed(size_t count) {
  owed_ += static_cast<uint32_t>(count);
  if (owed_ < kWindow / 4) return 0;
  const uint32_t credit = owed_;
  owed_ = 0;
  open_ += credit;
  return credit;
}

}  // namespace snug::protocol
