// passt as snug starts it, in a network namespace of this program.
#include "vmm/host/passt.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "devices/virtio/net/backend.h"
#include "tests/unit/host/own_network.h"

namespace snug {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::UnorderedElementsAre;

// What waits for anybody in this namespace: "tcp 0100007F:1F90", with address and port as the kernel prints
// them.
std::set<std::string> listeners() {
  std::set<std::string> found;
  for (const char* kind : {"tcp", "tcp6", "udp", "udp6"}) {
    std::ifstream table(fmt::format("/proc/self/net/{}", kind));
    std::string line;
    std::getline(table, line);
    while (std::getline(table, line)) {
      std::istringstream words(line);
      std::string number, local, remote, state;
      words >> number >> local >> remote >> state;
      if (state == "0A" || (kind[0] == 'u' && state == "07")) found.insert(fmt::format("{} {}", kind, local));
    }
  }
  return found;
}

class PasstTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string& why = test::enter_own_network(); !why.empty()) GTEST_SKIP() << why;
    if (find_program("passt").empty()) GTEST_SKIP() << "passt is not installed";
    // Held open, so that it has a carrier.
    static const UniqueFd uplink = test::open_tun("uplink", IFF_TAP | IFF_NO_PI);
    static const bool ready =
        test::run_ip("link set lo up") && test::run_ip("addr add 192.0.2.2/24 dev uplink") &&
        test::run_ip("addr add 2001:db8::2/64 dev uplink nodad") && test::run_ip("link set uplink up") &&
        test::run_ip("route add default via 192.0.2.1") &&
        test::run_ip("-6 route add default via 2001:db8::1");
    if (!ready) GTEST_SKIP() << "no interface that could be passt's way out";
  }
  // Whether passt answers: it has done all its setting up then.
  static bool answers(Passt& passt) {
    const auto stream = make_stream_backend(passt.take_socket());
    // Who has 192.0.2.1?
    std::array<uint8_t, 42> request{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0,   9, 8, 6,
                                    0,    1,    8,    0,    6,    4,    0, 1, 2, 0, 0,   0, 0, 9,
                                    192,  0,    2,    2,    0,    0,    0, 0, 0, 0, 192, 0, 2, 1};
    const iovec part{request.data(), request.size()};
    const OutFrame frame{{}, std::span(&part, 1), static_cast<uint32_t>(request.size())};
    if (stream->send(0, std::span(&frame, 1)) != 1) return false;
    for (;;) {
      pollfd wait{stream->fd(0), POLLIN, 0};
      if (::poll(&wait, 1, 20'000) != 1) return false;
      while (const auto in = stream->next(0)) {
        const bool arp_reply = in->data.size() >= 42 && in->data[12] == std::byte{8} &&
                               in->data[13] == std::byte{6} && in->data[21] == std::byte{2};
        stream->take(0);
        if (arp_reply) {
          heard_ = listeners();
          return true;
        }
      }
      if (stream->broken()) return false;
    }
  }
  static inline std::set<std::string> heard_;  // while passt was there
};

TEST_F(PasstTest, NothingIsPublishedUnlessAskedFor) {
  auto passt = Passt::start({});
  ASSERT_TRUE(passt) << passt.error().text();
  ASSERT_TRUE(answers(*passt)) << passt->last_words();
  EXPECT_THAT(heard_, IsEmpty());
}

TEST_F(PasstTest, WhatIsAskedForIsPublishedThereAlone) {
  NetSpec net;
  net.ports = {{"127.0.0.1", 8080, 80, false}, {"127.0.0.1", 8053, 53, true}, {"::1", 8081, 81, false}};
  auto passt = Passt::start(net);
  ASSERT_TRUE(passt) << passt.error().text();
  ASSERT_TRUE(answers(*passt)) << passt->last_words();
  EXPECT_THAT(heard_, UnorderedElementsAre("tcp 0100007F:1F90", "udp 0100007F:1F75",
                                           "tcp6 00000000000000000000000001000000:1F91"));
}

// Without a way out, for as long as this lives.
class Offline {
 public:
  explicit Offline(bool v4) : v4_(v4) {
    if (v4_) {
      EXPECT_TRUE(test::run_ip("route del default"));
    }
    EXPECT_TRUE(test::run_ip("-6 route del default"));
  }
  Offline(const Offline&) = delete;
  Offline& operator=(const Offline&) = delete;
  ~Offline() {
    if (v4_) {
      EXPECT_TRUE(test::run_ip("route add default via 192.0.2.1"));
    }
    EXPECT_TRUE(test::run_ip("-6 route add default via 2001:db8::1"));
  }

 private:
  bool v4_;
};

constexpr MacAddress kGuest{2, 0, 0, 0, 0, 9};

TEST_F(PasstTest, WorksOnAHostThatIsOffline) {
  const Offline offline(true);
  NetSpec net;
  net.ports = {{"127.0.0.1", 8080, 80, false}, {"::1", 8081, 81, false}};
  auto passt = Passt::start(net);
  ASSERT_TRUE(passt) << passt.error().text();
  const auto ready = passt->wait_until_ready(kGuest);
  ASSERT_TRUE(ready) << ready.error().text();
  EXPECT_THAT(listeners(),
              UnorderedElementsAre("tcp 0100007F:1F90", "tcp6 00000000000000000000000001000000:1F91"));
}

TEST_F(PasstTest, PublishesOnIpv6WithoutARouteOfIt) {
  const Offline offline(false);
  NetSpec net;
  net.ports = {{"::1", 8081, 81, false}};
  auto passt = Passt::start(net);
  ASSERT_TRUE(passt) << passt.error().text();
  const auto ready = passt->wait_until_ready(kGuest);
  ASSERT_TRUE(ready) << ready.error().text();
  EXPECT_THAT(listeners(), UnorderedElementsAre("tcp6 00000000000000000000000001000000:1F91"));
}

TEST_F(PasstTest, IsReadyWhenItsPortsAreOpen) {
  NetSpec net;
  net.ports = {{"127.0.0.1", 8080, 80, false}};
  auto passt = Passt::start(net);
  ASSERT_TRUE(passt) << passt.error().text();
  ASSERT_TRUE(passt->wait_until_ready(kGuest));
  EXPECT_THAT(listeners(), UnorderedElementsAre("tcp 0100007F:1F90"));
}

// Programs in the place of passt.
class FakePasst {
 public:
  explicit FakePasst(const std::string& script) : before_(std::getenv("PATH")) {
    folder_ = testing::TempDir() + "/snug-passt-XXXXXX";
    EXPECT_NE(::mkdtemp(folder_.data()), nullptr);
    std::ofstream(folder_ + "/passt") << "#!/bin/sh\n" << script << "\n";
    EXPECT_EQ(::chmod((folder_ + "/passt").c_str(), 0755), 0);
    ::setenv("PATH", (folder_ + ":" + before_).c_str(), 1);
  }
  FakePasst(const FakePasst&) = delete;
  FakePasst& operator=(const FakePasst&) = delete;
  ~FakePasst() {
    ::setenv("PATH", before_.c_str(), 1);
    std::filesystem::remove_all(folder_);
  }

 private:
  std::string before_, folder_;
};

TEST_F(PasstTest, SaysWhatKeptItFromItsWork) {
  const FakePasst fake("echo 'External interface not usable' >&2; exit 1");
  auto passt = Passt::start({});
  ASSERT_TRUE(passt) << passt.error().text();
  const auto ready = passt->wait_until_ready(kGuest);
  ASSERT_FALSE(ready);
  EXPECT_EQ(ready.error().text(), "passt: External interface not usable");
}

// The host's /etc/resolv.conf, in this namespace, until it is gone. Nothing can be mounted over a file that
// has no name any more, so it keeps its own.
class HostResolvConf {
 public:
  explicit HostResolvConf(const std::string& text) : path_(testing::TempDir() + "/snug-resolv.conf") {
    std::ofstream(path_) << text;
    set_ = ::mount(path_.c_str(), "/etc/resolv.conf", nullptr, MS_BIND, nullptr) == 0;
  }
  HostResolvConf(const HostResolvConf&) = delete;
  HostResolvConf& operator=(const HostResolvConf&) = delete;
  ~HostResolvConf() {
    if (set_) {
      EXPECT_EQ(::umount("/etc/resolv.conf"), 0);
    }
    ::unlink(path_.c_str());
  }
  bool is_set() const { return set_; }

 private:
  std::string path_;
  bool set_ = false;
};

TEST_F(PasstTest, ForwardsToNameServersOnTheLoopback) {
  const HostResolvConf host("nameserver 127.0.0.53\nsearch a.example\n");
  if (!host.is_set()) GTEST_SKIP() << "no resolv.conf to put in place";
  const FakePasst fake("echo \"$@\" >&2; cat /etc/resolv.conf >&2; exit 1");
  const auto said = [](const NetSpec& net) {
    auto passt = Passt::start(net);
    const auto ready = passt ? passt->wait_until_ready(kGuest) : Result<void>(tl::unexpected(passt.error()));
    return ready ? "" : ready.error().text();
  };
  EXPECT_THAT(said({}),
              AllOf(HasSubstr("--no-map-gw --dns-forward 169.254.1.1"),
                    HasSubstr("; nameserver 127.0.0.53; nameserver 169.254.1.1; search a.example")));
  NetSpec open;
  open.host_loopback = true;
  EXPECT_THAT(said(open), AllOf(Not(HasSubstr("--dns-forward")), Not(HasSubstr("169.254.1.1"))))
      << "the gateway's address leads there";
}

TEST_F(PasstTest, PortsThatCannotBeHad) {
  for (const bool udp : {false, true}) {
    const UniqueFd holder(::socket(AF_INET, udp ? SOCK_DGRAM : SOCK_STREAM, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    ASSERT_EQ(::bind(holder.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    if (!udp) {
      ASSERT_EQ(::listen(holder.get(), 1), 0);
    }
    ::getsockname(holder.get(), reinterpret_cast<sockaddr*>(&address), &length);
    NetSpec net;
    net.ports = {{"127.0.0.1", ntohs(address.sin_port), 80, udp}};
    const auto passt = Passt::start(net);
    ASSERT_FALSE(passt);
    EXPECT_THAT(passt.error().text(),
                AllOf(HasSubstr(fmt::format("publish {} port {} on 127.0.0.1", udp ? "UDP" : "TCP",
                                            ntohs(address.sin_port))),
                      HasSubstr("choose another host port")));
  }
  NetSpec net;
  net.ports = {{"198.51.100.7", 8080, 80, false}};
  const auto passt = Passt::start(net);
  ASSERT_FALSE(passt);
  EXPECT_THAT(passt.error().text(), HasSubstr("no interface of this host has that address"));
}

TEST_F(PasstTest, EndsWithItsOwnerAndWhenItIsTold) {
  pid_t pid = -1;
  {
    auto passt = Passt::start({});
    ASSERT_TRUE(passt);
    std::ifstream children("/proc/thread-self/children");
    children >> pid;
    ASSERT_GT(pid, 0);
  }
  EXPECT_EQ(::kill(pid, 0), -1) << "and it has been waited for";
  auto passt = Passt::start({});
  ASSERT_TRUE(passt);
  passt->kill();
  pollfd ended{passt->process_fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&ended, 1, 20'000), 1);
  EXPECT_THAT(passt->last_words(), HasSubstr("killed by signal 9"));
}

TEST(PasstProgram, IsSaidToBeMissingWithItsPackage) {
  const char* path = std::getenv("PATH");  // NOLINT(concurrency-mt-unsafe)
  const std::string before = path != nullptr ? path : "";
  ::setenv("PATH", "/nonexistent:.::relative", 1);  // NOLINT(concurrency-mt-unsafe)
  const auto passt = Passt::start({});
  ::setenv("PATH", before.c_str(), 1);  // NOLINT(concurrency-mt-unsafe)
  ASSERT_FALSE(passt);
  EXPECT_THAT(passt.error().text(), AllOf(HasSubstr("passt"), HasSubstr("sudo apt install passt")));
}

}  // namespace
}  // namespace snug
