#include "vmm/cli/image_ports.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace snug::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> published(const Spec& spec) {
  std::vector<std::string> texts;
  for (const PortForward& port : spec.ports)
    texts.push_back(
        fmt::format("{}:{}:{}{}", port.host_ip, port.host_port, port.guest_port, port.udp ? "/udp" : ""));
  return texts;
}

TEST(ImagePorts, EachOnAFreeOneOfTheHost) {
  Spec spec;
  ASSERT_TRUE(publish_exposed({"80/tcp", "53/udp", "8080"}, spec));
  EXPECT_THAT(published(spec), ElementsAre("127.0.0.1:0:80", "127.0.0.1:0:53/udp", "127.0.0.1:0:8080"));
  // A spec that has them already, as inspect prints it.
  ASSERT_TRUE(publish_exposed({"80/tcp", "53/udp", "8080"}, spec));
  EXPECT_EQ(spec.ports.size(), 3U);
}

TEST(ImagePorts, WhatTheSpecPublishesIsLeftToIt) {
  Spec spec;
  spec.ports.push_back({"0.0.0.0", 8080, 80, false});
  spec.net.emplace_back().ports.push_back({"127.0.0.1", 1053, 53, true});
  ASSERT_TRUE(publish_exposed({"80/tcp", "80/udp", "53/udp"}, spec));
  EXPECT_THAT(published(spec), ElementsAre("0.0.0.0:8080:80", "127.0.0.1:0:80/udp"));
}

TEST(ImagePorts, WhatIsNoPortIsLeftOut) {
  Spec spec;
  ASSERT_TRUE(
      publish_exposed({"0", "65536", "80/sctp", "", "/tcp", "a", "8000-8010", "-1", "443/tcp"}, spec));
  EXPECT_THAT(published(spec), ElementsAre("127.0.0.1:0:443"));
}

TEST(ImagePorts, ManyAreTooMany) {
  Spec spec;
  std::vector<std::string> exposed;
  for (int port = 1; port <= 257; ++port) exposed.push_back(std::to_string(port));
  EXPECT_THAT(publish_exposed(exposed, spec).error().text(), HasSubstr("more than 256 ports"));
}

}  // namespace
}  // namespace snug::cli
