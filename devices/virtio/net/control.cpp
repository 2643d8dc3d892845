#include "devices/virtio/net/control.h"

#include <algorithm>
#include <span>

#include "devices/virtio/net/features.h"
#include "vmm/base/endian.h"

namespace snug {
namespace {

using Kind = NetCommand::Kind;

// 5.1.6.5: class in the upper byte, command in the lower one.
constexpr uint16_t kPromiscuous = 0x0000;
constexpr uint16_t kAllMulticast = 0x0001;
constexpr uint16_t kMacTable = 0x0100;
constexpr uint16_t kMacAddress = 0x0101;
constexpr uint16_t kAnnounceAck = 0x0300;
constexpr uint16_t kPairs = 0x0400;
constexpr uint16_t kOffloads = 0x0500;

constexpr size_t kHead = 2;
constexpr size_t kDataMax = 8;  // of commands of a fixed length
constexpr size_t kMacSize = 6;

uint64_t length_of(const std::vector<VirtBuffer>& buffers) {
  uint64_t sum = 0;
  for (const VirtBuffer& buffer : buffers) sum += buffer.length;
  return sum;
}

// Two tables, each a number of addresses and then those (5.1.6.5.2).
bool is_mac_table(const GuestMemory& memory, const std::vector<VirtBuffer>& command) {
  const uint64_t length = length_of(command);
  uint64_t at = kHead;
  for (int table = 0; table < 2; ++table) {
    std::array<std::byte, 4> entries{};
    if (copy_from_chain(memory, command, at, entries) != entries.size()) return false;
    at += entries.size() + kMacSize * load_le(std::span<const std::byte>(entries));
    if (at > length) return false;
  }
  return at == length;
}

}  // namespace

NetCommand parse_net_command(const GuestMemory& memory, const std::vector<VirtBuffer>& command,
                             uint64_t features) {
  NetCommand parsed;
  std::array<std::byte, kHead + kDataMax> bytes{};
  if (copy_from_chain(memory, command, 0, bytes) < kHead) return parsed;
  const uint64_t data_length = length_of(command) - kHead;
  const auto data = std::span<const std::byte>(bytes).subspan(kHead);
  const auto is = [&](uint64_t feature, uint64_t length) {
    return (features & feature) != 0 && data_length == length;
  };
  const auto number =
      static_cast<uint16_t>(std::to_integer<unsigned>(bytes[0]) << 8 | std::to_integer<unsigned>(bytes[1]));
  switch (number) {
    case kPromiscuous:
    case kAllMulticast:
      if (is(net::kControlReceive, 1)) parsed.kind = Kind::kFilter;
      break;
    case kMacTable:
      if ((features & net::kControlReceive) != 0 && is_mac_table(memory, command))
        parsed.kind = Kind::kFilter;
      break;
    case kMacAddress:
      if (!is(net::kControlMac, kMacSize)) break;
      std::ranges::transform(data.first(kMacSize), parsed.mac.begin(),
                             [](std::byte byte) { return std::to_integer<uint8_t>(byte); });
      // An address of one station.
      if ((parsed.mac[0] & 1) == 0 && parsed.mac != decltype(parsed.mac){}) parsed.kind = Kind::kSetMac;
      break;
    case kAnnounceAck:
      if (is(net::kGuestAnnounce, 0)) parsed.kind = Kind::kAnnounced;
      break;
    case kPairs:
      if (!is(net::kMultiQueue, 2)) break;
      parsed.kind = Kind::kSetPairs;
      parsed.pairs = static_cast<uint16_t>(load_le(data.first(2)));
      break;
    case kOffloads:
      if (!is(net::kControlOffloads, 8)) break;
      parsed.kind = Kind::kSetOffloads;
      parsed.offloads = load_le(data.first(8));
      break;
    default:
      break;
  }
  return parsed;
}

}  // namespace snug
