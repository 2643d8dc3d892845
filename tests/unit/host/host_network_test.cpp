#include "vmm/host/host_network.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace snug {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;

constexpr const char* kHead =
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

TEST(DefaultRoutes, OfIpv4) {
  EXPECT_EQ(default_route4("").interface, "");
  EXPECT_EQ(default_route4(kHead).interface, "");
  const std::string table = std::string(kHead) +
                            "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
                            "eth1\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
  EXPECT_EQ(default_route4(table).interface, "eth1");
  EXPECT_TRUE(default_route4(table).has_gateway);
  const std::string tunnel =
      std::string(kHead) + "wg0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n";
  EXPECT_EQ(default_route4(tunnel).interface, "wg0");
  EXPECT_FALSE(default_route4(tunnel).has_gateway);
  EXPECT_EQ(default_route4(std::string(kHead) + "*\t00000000\t00000000\t0201\t0\t0\t0\t00000000\n").interface,
            "")
      << "unreachable";
}

TEST(DefaultRoutes, OfIpv6) {
  const std::string nothing(32, '0');
  // What Linux has on every host: packets to nowhere.
  const std::string reject =
      nothing + " 00 " + nothing + " 00 " + nothing + " ffffffff 00000001 00000000 00200200       lo\n";
  EXPECT_EQ(default_route6(reject).interface, "");
  const std::string route =
      nothing + " 00 " + nothing +
      " 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n";
  EXPECT_EQ(default_route6(reject + route).interface, "eth0");
  EXPECT_TRUE(default_route6(route).has_gateway);
}

const Uplink kUp{"eth0", true, true};
const PortForward kPort4{"127.0.0.1", 8080, 80, false};
const PortForward kPort6{"::1", 8080, 80, false};

TEST(Unpublishable, WhatNeedsIpv6WhereThereIsNone) {
  const std::vector<PortForward> all{
      {"127.0.0.1", 80, 80, false}, {"::1", 81, 81, false}, {"::", 82, 82, true}};
  HostNetwork host;
  std::vector<PortForward> ports = all;
  EXPECT_THAT(take_unpublishable(ports, host), ElementsAre(all[1], all[2]));
  EXPECT_THAT(ports, ElementsAre(all[0]));
  ports = all;
  host.link_local = "eth0";
  EXPECT_THAT(take_unpublishable(ports, host), IsEmpty());
  host = {};
  host.v6.usable = true;
  EXPECT_THAT(take_unpublishable(ports, host), IsEmpty());
  EXPECT_EQ(ports, all);
}

TEST(AddressOptions, WhatIsThereIsTaken) {
  EXPECT_THAT(address_options({kUp, kUp, "eth0"}, {kPort4, kPort6}, true), IsEmpty());
  EXPECT_THAT(address_options({kUp, {}, "eth0"}, {kPort4}, false), IsEmpty());
}

TEST(AddressOptions, OfflineTheGuestHasAddressesAllTheSame) {
  const auto options = address_options({}, {kPort4}, false);
  EXPECT_THAT(options, ElementsAre("--interface", "lo", "--mac-addr", "9a:55:9a:55:9a:55", "--address",
                                   "10.0.2.15", "--netmask", "24", "--gateway", "10.0.2.2"));
  EXPECT_THAT(address_options({}, {kPort4, kPort6}, false), Contains("fd73:6e75:67::15"));
}

TEST(AddressOptions, OneVersionMayBeMissing) {
  const auto with6 = address_options({kUp, {}, "eth0"}, {kPort6}, false);
  EXPECT_THAT(with6, Contains("eth0"));
  EXPECT_THAT(with6, Contains("fd73:6e75:67::15"));
  EXPECT_THAT(with6, Not(Contains("10.0.2.15")));
  const auto with4 = address_options({{}, {"eth1", true, true}, "eth1"}, {kPort4}, false);
  EXPECT_THAT(with4, Contains("eth1"));
  EXPECT_THAT(with4, Contains("10.0.2.15"));
  EXPECT_THAT(with4, Not(Contains("fd73:6e75:67::15")));
  EXPECT_THAT(address_options({{"wg0", false, false}, {}, ""}, {}, false), Contains("lo"))
      << "a default route that passt cannot use";
}

}  // namespace
}  // namespace snug
