#include "vmm/host/host_ports.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "vmm/base/unique_fd.h"

namespace snug {
namespace {

using testing::HasSubstr;

// Somebody else's port of 127.0.0.1, and one more that is free beside it, most probably.
class TakenPort {
 public:
  TakenPort() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(socket_.get(), 1), 0);
    ::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &length);
    number_ = ntohs(address.sin_port);
  }
  uint16_t number() const { return number_; }

 private:
  UniqueFd socket_;
  uint16_t number_ = 0;
};

TEST(HostPorts, TheHostChoosesFreeOnesThatDiffer) {
  std::vector<PortForward> ports{{"127.0.0.1", 0, 80, false},
                                 {"127.0.0.1", 0, 81, false},
                                 {"0.0.0.0", 0, 82, false},
                                 {"127.0.0.1", 0, 80, true}};
  ASSERT_TRUE(choose_ports(ports));
  for (const PortForward& port : ports) {
    EXPECT_NE(port.host_port, 0);
    EXPECT_TRUE(check_port(port));
  }
  EXPECT_NE(ports[0].host_port, ports[1].host_port);
  EXPECT_NE(ports[0].host_port, ports[2].host_port);
  EXPECT_EQ(ports[1].guest_port, 81);
}

TEST(HostPorts, NamedOnesStayAsTheyAre) {
  std::vector<PortForward> ports{{"127.0.0.1", 8080, 80, false}};
  const auto before = ports;
  ASSERT_TRUE(choose_ports(ports));
  EXPECT_EQ(ports, before);
}

TEST(HostPorts, TheFirstThatIsFreeOfSeveral) {
  const TakenPort taken;
  if (taken.number() > 65000) GTEST_SKIP() << "no room above";
  std::vector<PortForward> ports{
      {"127.0.0.1", taken.number(), 80, false, static_cast<uint16_t>(taken.number() + 500)}};
  ASSERT_TRUE(choose_ports(ports));
  EXPECT_GT(ports[0].host_port, taken.number());
  EXPECT_EQ(ports[0].host_port_last, 0);
}

TEST(HostPorts, NoneIsFree) {
  const TakenPort taken;
  std::vector<PortForward> ports{{"127.0.0.1", taken.number(), 80, false, taken.number()}};
  EXPECT_TRUE(choose_ports(ports).has_value() == false);
}

TEST(HostPorts, AnAddressOfAnotherHost) {
  std::vector<PortForward> ports{{"198.51.100.7", 0, 80, false}};
  const auto chosen = choose_ports(ports);
  ASSERT_FALSE(chosen);
  EXPECT_THAT(chosen.error().text(), HasSubstr("no interface of this host has that address"));
}

}  // namespace
}  // namespace snug
