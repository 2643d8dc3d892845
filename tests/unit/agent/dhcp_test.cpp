#include "guest-images/agent/dhcp.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>

#include <random>

namespace snug::test {
namespace {

using agent::DhcpAnswer;
using agent::DhcpMessage;
using agent::HardwareAddress;
using agent::Lease;
using testing::ElementsAre;

constexpr HardwareAddress kClient{0x02, 1, 2, 3, 4, 5};
constexpr uint32_t kTransaction = 0x12345678;

uint32_t address(const char* text) { return ::inet_addr(text); }

uint8_t byte(const std::string& packet, size_t at) { return static_cast<uint8_t>(packet[at]); }

// What a server sends: the client's own message as a reply, with these options.
std::string answer(std::string options, uint32_t yours = address("10.0.2.15")) {
  std::string packet = agent::dhcp_packet(kTransaction, kClient, nullptr).substr(0, 20 + 8 + 240);
  std::swap(packet[20], packet[22]);
  std::swap(packet[21], packet[23]);
  packet[28] = 2;
  packet.replace(28 + 16, 4, reinterpret_cast<const char*>(&yours), 4);
  packet += options;
  packet[2] = static_cast<char>(packet.size() >> 8);
  packet[3] = static_cast<char>(packet.size());
  return packet;
}

std::string four(const char* text) {
  const uint32_t number = address(text);
  return {reinterpret_cast<const char*>(&number), 4};
}

const std::string kOffer = std::string("\x35\x01\x02", 3) + "\x36\x04" + four("10.0.2.2") + "\x01\x04" +
                           four("255.255.255.0") + std::string("\0\0", 2) + "\x03\x08" + four("10.0.2.2") +
                           four("10.0.2.3") + "\x06\x08" + four("1.1.1.1") + four("8.8.8.8") + "\xff";

TEST(Dhcp, WhatAClientSays) {
  const std::string discovery = agent::dhcp_packet(kTransaction, kClient, nullptr);
  EXPECT_EQ(byte(discovery, 0), 0x45);
  EXPECT_EQ(discovery.substr(16, 4), four("255.255.255.255"));
  uint32_t sum = 0;
  for (size_t i = 0; i < 20; i += 2)
    sum += static_cast<uint32_t>(byte(discovery, i) << 8 | byte(discovery, i + 1));
  EXPECT_EQ((sum & 0xffff) + (sum >> 16), 0xffffU) << "the header's checksum";
  EXPECT_EQ(discovery.substr(20, 4), std::string("\0\x44\0\x43", 4));
  EXPECT_EQ(discovery.substr(28 + 236, 7), std::string("\x63\x82\x53\x63\x35\x01\x01", 7));
  const Lease offer{.address = address("10.0.2.15"), .server = address("10.0.2.2")};
  const std::string request = agent::dhcp_packet(kTransaction, kClient, &offer);
  EXPECT_EQ(request.substr(28 + 240, 15),
            std::string("\x35\x01\x03\x32\x04", 5) + four("10.0.2.15") + "\x36\x04" + four("10.0.2.2"));
  EXPECT_GE(request.size(), 28U + 300);
}

TEST(Dhcp, WhatAServerOffers) {
  const auto read = agent::read_dhcp_packet(answer(kOffer) + "padding", kTransaction, kClient);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->type, DhcpMessage::kOffer);
  EXPECT_EQ(read->lease.address, address("10.0.2.15"));
  EXPECT_EQ(read->lease.mask, address("255.255.255.0"));
  EXPECT_EQ(read->lease.server, address("10.0.2.2"));
  EXPECT_EQ(read->lease.gateway, address("10.0.2.2"));
  EXPECT_THAT(read->lease.name_servers, ElementsAre(address("1.1.1.1"), address("8.8.8.8")));
}

TEST(Dhcp, WhatIsNotForUs) {
  const std::string good = answer(kOffer);
  EXPECT_FALSE(agent::read_dhcp_packet(good, kTransaction + 1, kClient));
  EXPECT_FALSE(agent::read_dhcp_packet(good, kTransaction, {0x02, 1, 2, 3, 4, 6}));
  EXPECT_FALSE(
      agent::read_dhcp_packet(agent::dhcp_packet(kTransaction, kClient, nullptr), kTransaction, kClient))
      << "our own";
  EXPECT_FALSE(agent::read_dhcp_packet(answer("\xff"), kTransaction, kClient)) << "without a type";
  EXPECT_FALSE(agent::read_dhcp_packet(answer(std::string("\x35\x01\x02\x06\x08", 5) + four("1.1.1.1")),
                                       kTransaction, kClient))
      << "cut";
  for (size_t size = 0; size < 20 + 8 + 240 + 3; ++size)
    EXPECT_FALSE(agent::read_dhcp_packet(good.substr(0, size), kTransaction, kClient)) << size;
}

TEST(Dhcp, AnythingElseIsSurvived) {
  std::mt19937 random(1);
  for (int i = 0; i < 100'000; ++i) {
    std::string packet = answer(kOffer);
    for (int changes = static_cast<int>(random() % 8); changes >= 0; --changes)
      packet[random() % packet.size()] = static_cast<char>(random());
    packet.resize(random() % 2 == 0 ? packet.size() : random() % (packet.size() + 1));
    (void)agent::read_dhcp_packet(packet, kTransaction, kClient);
  }
}

}  // namespace
}  // namespace snug::test
