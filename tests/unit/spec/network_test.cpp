#include "vmm/spec/network.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vmm/spec/values.h"

namespace snug {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Ports, Forms) {
  struct {
    const char* text;
    PortForward forward;
    const char* printed;
  } const cases[] = {
      {"8080:80", {"127.0.0.1", 8080, 80, false}, "127.0.0.1:8080:80"},
      {"1:65535/udp", {"127.0.0.1", 1, 65535, true}, "127.0.0.1:1:65535/udp"},
      {"0.0.0.0:53:53/tcp", {"0.0.0.0", 53, 53, false}, "0.0.0.0:53:53"},
      {"[::1]:8080:80", {"::1", 8080, 80, false}, "[::1]:8080:80"},
      {"[fe80::1]:8080:80/udp", {"fe80::1", 8080, 80, true}, "[fe80::1]:8080:80/udp"},
      {"0:80", {"127.0.0.1", 0, 80, false}, "127.0.0.1:0:80"},
      {"80", {"127.0.0.1", 0, 80, false}, "127.0.0.1:0:80"},
      {"53/udp", {"127.0.0.1", 0, 53, true}, "127.0.0.1:0:53/udp"},
      {"127.0.0.2::80", {"127.0.0.2", 0, 80, false}, "127.0.0.2:0:80"},
      {"[::1]::80", {"::1", 0, 80, false}, "[::1]:0:80"},
      {"8000-8010:80", {"127.0.0.1", 8000, 80, false, 8010}, "127.0.0.1:8000-8010:80"},
  };
  for (const auto& [text, forward, printed] : cases) {
    const auto parsed = detail::parse_ports(text);
    ASSERT_TRUE(parsed) << text << ": " << parsed.error().text();
    EXPECT_EQ(*parsed, std::vector{forward}) << text;
    EXPECT_EQ(detail::print_port(parsed->front()), printed);
    EXPECT_EQ(*detail::parse_ports(printed), std::vector{forward});
  }
}

TEST(Ports, RangesAreOneForEach) {
  EXPECT_EQ(
      *detail::parse_ports("8000-8002:80-82/udp"),
      (std::vector<PortForward>{
          {"127.0.0.1", 8000, 80, true}, {"127.0.0.1", 8001, 81, true}, {"127.0.0.1", 8002, 82, true}}));
  EXPECT_EQ(*detail::parse_ports("[::1]::80-81"),
            (std::vector<PortForward>{{"::1", 0, 80, false}, {"::1", 0, 81, false}}));
  EXPECT_EQ(detail::parse_ports("1-65535:1-65535")->size(), 65535U);
  EXPECT_THAT(detail::parse_ports("8000-8001:80-82").error().text(),
              HasSubstr("2 ports of the host for 3 of the guest"));
}

TEST(Ports, Mistakes) {
  for (const char* text : {"",
                           ":",
                           "a:80",
                           "80:",
                           ":80",
                           "80:0",
                           "65536:80",
                           "80:80:80:80",
                           "::1:80:80",
                           "[::1:80:80",
                           "localhost:80:80",
                           "1.2.3:80:80",
                           "80:80/",
                           "80:80/sctp",
                           "90-80:90-80",
                           "0-9:80",
                           "80-:80",
                           "-80:80",
                           "80-90-100:80",
                           "8000-65536:80",
                           "80-81:80-82",
                           "::80",
                           "80:80/udp/tcp",
                           " 80:80",
                           "080:80",
                           "+80:80",
                           "[]:80:80"})
    EXPECT_FALSE(detail::parse_ports(text)) << text;
  EXPECT_THAT(detail::parse_ports("::1:80:80").error().text(), HasSubstr("brackets"));
}

TEST(Mac, Forms) {
  EXPECT_EQ(*detail::parse_mac("02:00:5e:AB:cd:ff"), (MacAddress{2, 0, 0x5e, 0xab, 0xcd, 0xff}));
  EXPECT_EQ(detail::print_mac({2, 0, 0x5e, 0xab, 0xcd, 0xff}), "02:00:5e:ab:cd:ff");
  for (const char* text :
       {"", "02:00:5e:ab:cd", "02:00:5e:ab:cd:ff:01", "02-00-5e-ab-cd-ff", "2:0:5e:ab:cd:ff",
        "03:00:00:00:00:01", "00:00:00:00:00:00", "0x:00:00:00:00:01", "02:00:00:00:00:-1"})
    EXPECT_FALSE(detail::parse_mac(text)) << text;
}

TEST(Interfaces, AddressesAreStableAndDiffer) {
  Spec spec;
  spec.name = "web";
  spec.net.resize(2);
  const auto nics = network_interfaces(spec);
  ASSERT_EQ(nics.size(), 2U);
  EXPECT_EQ(nics[0].mac, network_interfaces(spec)[0].mac);
  EXPECT_NE(nics[0].mac, nics[1].mac);
  EXPECT_NE(default_mac("web", 0), default_mac("db", 0));
  for (int i = 0; i < 1000; ++i) {
    const MacAddress mac = default_mac("m" + std::to_string(i), 0);
    EXPECT_EQ(mac[0] & 3, 2) << "local, one station";
  }
}

TEST(Interfaces, Taps) {
  EXPECT_EQ(tap_descriptors("tap0"), std::nullopt);
  EXPECT_EQ(tap_descriptors("fd:5"), std::vector{5});
  EXPECT_EQ(tap_descriptors("fd:999999:0:7"), (std::vector{999999, 0, 7}));
  for (const char* text : {"", "fd:", "fd:5:", "fd:1234567", "fd:-1", "a b", "tap/0", "0123456789abcdef"})
    EXPECT_FALSE(detail::parse_tap(text)) << text;
  Spec spec;
  spec.net = {{.mode = NetMode::kTap, .tap = "fd:5:6"}};
  EXPECT_EQ(network_interfaces(spec)[0].queues, 2U);
}

TEST(Interfaces, PortsMakeOneOrJoinTheFirst) {
  Spec spec;
  spec.ports = {{"127.0.0.1", 8080, 80, false}};
  auto nics = network_interfaces(spec);
  ASSERT_EQ(nics.size(), 1U);
  EXPECT_EQ(nics[0].mode, NetMode::kUser);
  EXPECT_EQ(nics[0].ports, spec.ports);
  spec.net = {{.mode = NetMode::kNone}, {.ports = {{"127.0.0.1", 8081, 81, false}}}};
  nics = network_interfaces(spec);
  ASSERT_EQ(nics.size(), 1U);
  EXPECT_EQ(nics[0].ports.size(), 2U);
}

TEST(Interfaces, Problems) {
  Spec spec;
  EXPECT_THAT(network_problems(spec), IsEmpty());
  spec.net = {{.mtu = 100}, {.mode = NetMode::kNone, .ports = {{"127.0.0.1", 8080, 80, false}}}};
  EXPECT_THAT(network_problems(spec), ElementsAre("net[0]: mtu: at least 576, got 100",
                                                  "net[1]: ports are published by mode user only"));
  spec.net = {{.ports = {{"127.0.0.1", 8080, 80, false}}}};
  spec.ports = {{"127.0.0.1", 8080, 81, false}, {"127.0.0.1", 8080, 81, true}};
  EXPECT_THAT(network_problems(spec), ElementsAre("ports: 127.0.0.1:8080:81 is published twice"));
  spec.ports = {{"127.0.0.1", 0, 81, false}, {"127.0.0.1", 0, 82, false}};
  EXPECT_THAT(network_problems(spec), IsEmpty()) << "each has a port of its own";
  spec.ports.clear();
  spec.net.assign(2, {.mac = MacAddress{2, 0, 0, 0, 0, 1}});
  EXPECT_THAT(network_problems(spec), ElementsAre("net: two interfaces with the address 02:00:00:00:00:01"));
  spec.net = {{.vhost = VhostUse::kOff}, {.tap = "tap0"}, {.mode = NetMode::kTap}, {.queues = 2}};
  EXPECT_THAT(network_problems(spec),
              ElementsAre("net[0]: vhost is for mode tap only", "net[1]: tap: tap0 needs mode: tap",
                          "net[2]: mode tap needs the interface's name: tap: tap0",
                          "net[3]: several queues are for mode tap only"));
  spec.net.assign(2, {.mode = NetMode::kTap, .tap = "tap0"});
  EXPECT_THAT(network_problems(spec), ElementsAre("net: tap0 is there twice"));
  spec.net = {{.mode = NetMode::kTap, .tap = "fd:5:6:5"},
              {.mode = NetMode::kTap, .tap = "fd:6"},
              {.mode = NetMode::kTap, .tap = "fd:7:8", .queues = 3}};
  EXPECT_THAT(network_problems(spec),
              ElementsAre("net[2]: 2 descriptors for 3 queues", "net: descriptor 5 is there twice",
                          "net: descriptor 6 is there twice"));
  spec.net = {{.mode = NetMode::kTap, .tap = "tap0", .queues = 2, .vhost = VhostUse::kOn},
              {.mode = NetMode::kTap, .tap = "fd:5:6", .queues = 2}};
  EXPECT_THAT(network_problems(spec), IsEmpty());
  spec.net.assign(9, {});
  EXPECT_THAT(network_problems(spec), ElementsAre("net: at most 8 interfaces, got 9"));
}

}  // namespace
}  // namespace snug
