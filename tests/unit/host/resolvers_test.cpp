#include "vmm/host/resolvers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace snug {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(Resolvers, WhereTheyAre) {
  EXPECT_FALSE(resolvers_in("").any_on_loopback());
  const Resolvers stub = resolvers_in("# by systemd-resolved\nnameserver 127.0.0.53\noptions edns0\n");
  EXPECT_TRUE(stub.loopback4);
  EXPECT_FALSE(stub.loopback6 || stub.others);
  const Resolvers both = resolvers_in("nameserver\t::1\nnameserver fe80::1%eth0");
  EXPECT_TRUE(both.loopback6 && both.others);
  EXPECT_FALSE(both.loopback4);
  for (const char* text : {"nameserver", "nameserver \n", "nameservers 127.0.0.1", "nameserver local",
                           "#nameserver 127.0.0.1", "search 127.0.0.1"}) {
    const Resolvers none = resolvers_in(text);
    EXPECT_FALSE(none.any_on_loopback() || none.others) << text;
  }
  EXPECT_TRUE(resolvers_in("nameserver 0.0.0.0").loopback4) << "to Linux, this host";
  EXPECT_TRUE(resolvers_in("nameserver 1.2.3.4  # far\n").others);
}

TEST(Resolvers, ThoseAGuestCanReach) {
  EXPECT_THAT(reachable_resolvers("nameserver 127.0.0.1\nnameserver ::1\n"), IsEmpty());
  EXPECT_THAT(reachable_resolvers("nameserver 9.9.9.9\nnameserver 127.0.0.53\nnameserver 2620:fe::9\n"),
              ElementsAre("9.9.9.9", "2620:fe::9"));
}

TEST(Resolvers, ThoseToForwardToComeFirst) {
  EXPECT_EQ(forwarding_resolv_conf("search a.example b.example\nnameserver 9.9.9.9\nnameserver 127.0.0.53\n"
                                   "options edns0"),
            "nameserver 127.0.0.53\nnameserver 169.254.1.1\nnameserver 9.9.9.9\n"
            "search a.example b.example\noptions edns0\n");
  EXPECT_EQ(forwarding_resolv_conf("nameserver ::1\n"), "nameserver ::1\nnameserver fd73:6e75:67::53\n");
}

}  // namespace
}  // namespace snug
