#include "guest-images/agent/dhcp.h"

#include <arpa/inet.h>
#include <netinet/ip.h>
#include <netinet/udp.h>

#include <algorithm>
#include <cstring>

namespace snug::agent {
namespace {

constexpr uint16_t kServerPort = 67, kClientPort = 68;
constexpr uint32_t kCookie = 0x63825363;
constexpr size_t kSmallest = 300;  // of a message, for old relays

// RFC 2131, figure 1, and the cookie before the options.
struct [[gnu::packed]] Fixed {
  uint8_t operation, hardware, hardware_length, hops;
  uint32_t transaction;
  uint16_t seconds, flags;
  uint32_t client, yours, next_server, relay;
  uint8_t address[16];
  char server_name[64], file[128];
  uint32_t cookie;
};
static_assert(sizeof(Fixed) == 240);

enum Option : uint8_t {
  kPad = 0,
  kMask = 1,
  kRouter = 3,
  kNameServers = 6,
  kRequested = 50,
  kType = 53,
  kServer = 54,
  kWanted = 55,
  kEnd = 255,
};

template <class T>
void append(std::string& bytes, const T& value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void append_address(std::string& bytes, Option option, uint32_t address) {
  bytes += {static_cast<char>(option), 4};
  append(bytes, address);
}

uint16_t checksum(std::string_view bytes) {
  uint32_t sum = 0;
  for (size_t i = 0; i + 1 < bytes.size(); i += 2)
    sum += static_cast<uint32_t>(static_cast<uint8_t>(bytes[i]) << 8 | static_cast<uint8_t>(bytes[i + 1]));
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return htons(static_cast<uint16_t>(~sum));
}

std::string message(uint32_t transaction, const HardwareAddress& client, const Lease* offer) {
  Fixed fixed{};
  fixed.operation = 1;
  fixed.hardware = 1;
  fixed.hardware_length = static_cast<uint8_t>(client.size());
  fixed.transaction = transaction;
  fixed.flags = htons(0x8000);  // we have no address yet to be answered at
  std::copy(client.begin(), client.end(), fixed.address);
  fixed.cookie = htonl(kCookie);
  std::string bytes;
  append(bytes, fixed);
  const auto type = offer != nullptr ? DhcpMessage::kRequest : DhcpMessage::kDiscover;
  bytes += {static_cast<char>(kType), 1, static_cast<char>(type)};
  if (offer != nullptr) {
    append_address(bytes, kRequested, offer->address);
    append_address(bytes, kServer, offer->server);
  }
  bytes += {static_cast<char>(kWanted),      3,
            static_cast<char>(kMask),        static_cast<char>(kRouter),
            static_cast<char>(kNameServers), static_cast<char>(kEnd)};
  if (bytes.size() < kSmallest) bytes.resize(kSmallest);
  return bytes;
}

uint32_t address_at(std::string_view bytes) {
  uint32_t address = 0;
  std::memcpy(&address, bytes.data(), sizeof address);
  return address;
}

// False: they end in the middle, or there is no type.
bool read_options(std::string_view options, DhcpAnswer& answer) {
  bool typed = false;
  while (!options.empty()) {
    const auto option = static_cast<uint8_t>(options[0]);
    options.remove_prefix(1);
    if (option == kPad) continue;
    if (option == kEnd) break;
    if (options.empty() || options.size() - 1 < static_cast<uint8_t>(options[0])) return false;
    const std::string_view value = options.substr(1, static_cast<uint8_t>(options[0]));
    options.remove_prefix(1 + value.size());
    if (option == kType && value.size() == 1) {
      answer.type = static_cast<DhcpMessage>(value[0]);
      typed = true;
    }
    if (value.size() < 4) continue;
    if (option == kMask) answer.lease.mask = address_at(value);
    if (option == kServer) answer.lease.server = address_at(value);
    if (option == kRouter) answer.lease.gateway = address_at(value);
    if (option == kNameServers)
      for (size_t at = 0; at + 4 <= value.size(); at += 4)
        answer.lease.name_servers.push_back(address_at(value.substr(at)));
  }
  return typed;
}

}  // namespace

std::string dhcp_packet(uint32_t transaction, const HardwareAddress& client, const Lease* offer) {
  const std::string payload = message(transaction, client, offer);
  udphdr udp{};
  udp.source = htons(kClientPort);
  udp.dest = htons(kServerPort);
  udp.len = htons(static_cast<uint16_t>(sizeof udp + payload.size()));  // its checksum may be left out
  iphdr ip{};
  ip.version = 4;
  ip.ihl = sizeof ip / 4;
  ip.tot_len = htons(static_cast<uint16_t>(sizeof ip + sizeof udp + payload.size()));
  ip.ttl = 64;
  ip.protocol = IPPROTO_UDP;
  ip.daddr = htonl(INADDR_BROADCAST);
  ip.check = checksum({reinterpret_cast<const char*>(&ip), sizeof ip});
  std::string packet;
  append(packet, ip);
  append(packet, udp);
  return packet + payload;
}

std::optional<DhcpAnswer> read_dhcp_packet(std::string_view packet, uint32_t transaction,
                                           const HardwareAddress& client) {
  iphdr ip{};
  udphdr udp{};
  Fixed fixed{};
  if (packet.size() < sizeof ip) return std::nullopt;
  std::memcpy(&ip, packet.data(), sizeof ip);
  const size_t header = ip.ihl * size_t{4};
  if (ip.version != 4 || header < sizeof ip || ip.protocol != IPPROTO_UDP) return std::nullopt;
  // What pads a short frame is not a part of it.
  if (const size_t total = ntohs(ip.tot_len); total <= packet.size()) packet = packet.substr(0, total);
  if (packet.size() < header + sizeof udp + sizeof fixed) return std::nullopt;
  std::memcpy(&udp, packet.data() + header, sizeof udp);
  std::memcpy(&fixed, packet.data() + header + sizeof udp, sizeof fixed);
  if (udp.source != htons(kServerPort) || udp.dest != htons(kClientPort)) return std::nullopt;
  if (fixed.operation != 2 || fixed.transaction != transaction || fixed.cookie != htonl(kCookie) ||
      !std::equal(client.begin(), client.end(), fixed.address))
    return std::nullopt;
  DhcpAnswer answer{};
  answer.lease.address = fixed.yours;
  if (!read_options(packet.substr(header + sizeof udp + sizeof fixed), answer)) return std::nullopt;
  return answer;
}

}  // namespace snug::agent
