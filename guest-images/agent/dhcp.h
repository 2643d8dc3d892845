// What a DHCP client and its server say to each other (RFC 2131, 2132), as far as a guest needs it. Addresses
// are in network byte order.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace snug::agent {

using HardwareAddress = std::array<uint8_t, 6>;

struct Lease {
  uint32_t address = 0;
  uint32_t mask = 0;     // 0: the server names none
  uint32_t server = 0;   // whom to ask for it
  uint32_t gateway = 0;  // the first one; 0: none
  std::vector<uint32_t> name_servers;
};

enum class DhcpMessage : uint8_t { kDiscover = 1, kOffer = 2, kRequest = 3, kAck = 5, kNak = 6 };

// An IP packet (IPv4, UDP from port 68 to 67, to everybody): a discovery; with `offer`, the request for it.
std::string dhcp_packet(uint32_t transaction, const HardwareAddress& client, const Lease* offer);

struct DhcpAnswer {
  DhcpMessage type;
  Lease lease;
};
// Nothing: another packet, another's answer, or one that is cut or wrong.
std::optional<DhcpAnswer> read_dhcp_packet(std::string_view packet, uint32_t transaction,
                                           const HardwareAddress& client);

}  // namespace snug::agent
