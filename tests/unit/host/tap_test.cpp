// Tap interfaces of the kernel, in a network namespace of this program.
#include "vmm/host/tap.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <array>
#include <cstring>
#include <fstream>
#include <thread>

#include "devices/virtio/net/features.h"
#include "tests/unit/host/own_network.h"
#include "vmm/core/event_loop.h"

namespace snug {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using Bytes = std::vector<std::byte>;

constexpr uint64_t kOffloads = net::kChecksum | net::kGuestChecksum | net::kGuestTso4 | net::kHostTso4;

class TapTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string& why = test::enter_own_network(); !why.empty()) GTEST_SKIP() << why;
  }
  static UniqueFd make(const std::string& name, int flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR) {
    return test::open_tun(name, flags);
  }
  // There when nobody has it open; deleted by clearing it again.
  static void make_lasting(const std::string& name, int flags = IFF_TAP | IFF_NO_PI, int owner = -1) {
    const UniqueFd fd = make(name, flags);
    EXPECT_EQ(::ioctl(fd.get(), TUNSETPERSIST, 1), 0);
    if (owner >= 0) {
      EXPECT_EQ(::ioctl(fd.get(), TUNSETOWNER, owner), 0) << errno_text(errno);
    }
  }
  static void bring_up(const std::string& name, int mtu = 1500) {
    const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM, 0));
    ifreq request{};
    std::strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
    request.ifr_mtu = mtu;
    EXPECT_EQ(::ioctl(socket.get(), SIOCSIFMTU, &request), 0);
    request.ifr_flags = IFF_UP;
    EXPECT_EQ(::ioctl(socket.get(), SIOCSIFFLAGS, &request), 0);
    // Its own chatter (router solicitations) would be among the frames.
    const UniqueFd setting(::open(("/proc/sys/net/ipv6/conf/" + name + "/disable_ipv6").c_str(), O_WRONLY));
    if (setting) (void)!::write(setting.get(), "1", 1);
  }
  static NetSpec spec(const std::string& tap, uint32_t queues = 1, VhostUse vhost = VhostUse::kOff) {
    return {.mode = NetMode::kTap, .tap = tap, .queues = queues, .vhost = vhost};
  }
  static std::string error_of(const NetSpec& net) {
    const auto opened = Tap::open(net);
    return opened ? "opened" : opened.error().text();
  }
};

TEST_F(TapTest, OpensWhatExists) {
  make_lasting("t0");
  bring_up("t0", 1400);
  const auto tap = Tap::open(spec("t0"));
  ASSERT_TRUE(tap) << tap.error().text();
  EXPECT_EQ(tap->mtu(), 1400u);
  EXPECT_EQ(tap->files().taps.size(), 1u);
  EXPECT_TRUE(tap->files().vhost.empty());
  EXPECT_NE(::fcntl(tap->files().taps[0], F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(::fcntl(tap->files().taps[0], F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(TapTest, SaysWhyNot) {
  EXPECT_THAT(error_of(spec("missing")),
              HasSubstr("no interface missing; make it: sudo ip tuntap add dev missing mode tap user"));
  EXPECT_THAT(error_of(spec("lo")), HasSubstr("lo: not a tap interface"));
  make_lasting("tun0", IFF_TUN | IFF_NO_PI);
  EXPECT_THAT(error_of(spec("tun0")), HasSubstr("tun0: not a tap interface"));
  make_lasting("single");
  EXPECT_THAT(error_of(spec("single", 2)), testing::AllOf(HasSubstr("single: not made for several queues"),
                                                          HasSubstr("multi_queue user")));
  make_lasting("multi", IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE);
  EXPECT_THAT(error_of(spec("multi")), HasSubstr("multi: not made for one queue"));
  EXPECT_EQ(error_of(spec("multi", 3)), "opened");
  const auto holder = Tap::open(spec("single"));
  EXPECT_THAT(error_of(spec("single")), HasSubstr("single: in use by another process"));
}

TEST_F(TapTest, AnotherUsersInterfaceIsRefused) {
  std::ifstream map("/proc/self/uid_map");
  uint32_t first = 0, outside = 0, count = 0;
  map >> first >> outside >> count;
  if (count <= 12345) GTEST_SKIP() << "no other user in this namespace";
  make_lasting("theirs", IFF_TAP | IFF_NO_PI, 12345);
  std::string error;
  // Capabilities are a thread's own.
  std::thread([&] {
    __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    const std::array<__user_cap_data_struct, 2> none{};
    ASSERT_EQ(::syscall(SYS_capset, &header, none.data()), 0);
    error = error_of(spec("theirs"));
  }).join();
  EXPECT_THAT(error, HasSubstr("theirs: belongs to another user"));
}

TEST_F(TapTest, Descriptors) {
  const UniqueFd tap = make("d0");
  auto opened = Tap::open(spec("fd:" + std::to_string(tap.get())));
  ASSERT_TRUE(opened) << opened.error().text();
  EXPECT_NE(opened->files().taps[0], tap.get());
  EXPECT_NE(::fcntl(tap.get(), F_GETFD) & FD_CLOEXEC, 0) << "not for the processes that snug starts";

  EXPECT_THAT(error_of(spec("fd:999999")), HasSubstr("fd:999999: not open"));
  const UniqueFd file(::open("/dev/null", O_RDWR));
  EXPECT_THAT(error_of(spec("fd:" + std::to_string(file.get()))), HasSubstr("not a tap"));
  const UniqueFd bare = make("d1", IFF_TAP | IFF_NO_PI);
  EXPECT_THAT(error_of(spec("fd:" + std::to_string(bare.get()))), HasSubstr("IFF_VNET_HDR"));
  const UniqueFd tun = make("d2", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR);
  EXPECT_THAT(error_of(spec("fd:" + std::to_string(tun.get()))), HasSubstr("do not have the form"));
  const UniqueFd other = make("d3");
  EXPECT_THAT(error_of(spec(fmt::format("fd:{}:{}", tap.get(), other.get()), 2)),
              HasSubstr("of another interface than the first: d3, not d0"));

  constexpr int kMulti = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
  const UniqueFd first = make("d4", kMulti), second = make("d4", kMulti);
  opened = Tap::open(spec(fmt::format("fd:{}:{}", first.get(), second.get()), 2));
  ASSERT_TRUE(opened) << opened.error().text();
  EXPECT_EQ(opened->files().taps.size(), 2u);
}

TEST_F(TapTest, VhostIsUsedWhereThereIsAny) {
  make_lasting("v0", IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE);
  const auto automatic = Tap::open(spec("v0", 2, VhostUse::kAuto));
  ASSERT_TRUE(automatic) << automatic.error().text();
  if (::access("/dev/vhost-net", R_OK | W_OK) != 0) {
    EXPECT_TRUE(automatic->files().vhost.empty());
    EXPECT_THAT(error_of(spec("v0", 2, VhostUse::kOn)),
                testing::AllOf(HasSubstr("/dev/vhost-net"), HasSubstr("vhost: off")));
    return;
  }
  EXPECT_EQ(automatic->files().vhost.size(), 2u);
}

// --- frames, between a backend and a packet socket on the kernel's end ----------------------------------

class TapBackendTest : public TapTest {
 protected:
  void SetUp() override {
    TapTest::SetUp();
    if (IsSkipped()) return;
    name_ = fmt::format("b{}", ++count_);
    make_lasting(name_, IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE);
    bring_up(name_);
    tap_.emplace(std::move(*Tap::open(spec(name_, 2))));
    backend_ = std::move(*make_tap_backend(tap_->files()));
    socket_ = UniqueFd(::socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_ALL)));
    const int on = 1;
    ASSERT_EQ(::setsockopt(socket_.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on), 0);
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(::if_nametoindex(name_.c_str()));
    ASSERT_EQ(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    wait_for_carrier();
  }
  // The kernel drops what is sent until a worker of its own has seen the carrier, some time after the tap is
  // open.
  void wait_for_carrier() {
    std::array<pollfd, 2> taps{{{tap_->files().taps[0], POLLIN, 0}, {tap_->files().taps[1], POLLIN, 0}}};
    int tries = 1000;
    do give({}, plain(60, 0));
    while (::poll(taps.data(), taps.size(), 10) == 0 && --tries > 0);
    ASSERT_GT(tries, 0) << "nothing arrives";
    Bytes bytes(1000);
    for (const pollfd& tap : taps)
      while (::read(tap.fd, bytes.data(), bytes.size()) > 0) continue;
  }
  // An Ethernet frame of an experimental kind (IEEE 802: 0x88b5), or a TCP segment over IPv4.
  static Bytes plain(size_t size, uint8_t seed) {
    Bytes frame(size);
    for (size_t i = 14; i < size; ++i) frame[i] = static_cast<std::byte>(seed + i);
    frame[0] = frame[6] = std::byte{2};
    frame[5] = std::byte{1};
    frame[11] = std::byte{2};
    frame[12] = std::byte{0x88};
    frame[13] = std::byte{0xb5};
    return frame;
  }
  static Bytes tcp(size_t payload) {
    Bytes frame = plain(14 + 20 + 20 + payload, 1);
    frame[12] = std::byte{8};
    frame[13] = std::byte{0};
    std::array<uint8_t, 40> headers{0x45, 0, 0, 0, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1};
    const size_t length = 40 + payload;
    headers[2] = static_cast<uint8_t>(length >> 8);
    headers[3] = static_cast<uint8_t>(length);
    headers[20 + 12] = 5 << 4;
    headers[20 + 13] = 0x10;
    for (size_t i = 0; i < headers.size(); ++i) frame[14 + i] = std::byte{headers[i]};
    return frame;
  }
  size_t send(const VirtioNetHeader& header, const Bytes& frame, uint16_t pair = 0) {
    const iovec part{const_cast<std::byte*>(frame.data()), frame.size()};
    const OutFrame out{header, std::span(&part, 1), static_cast<uint32_t>(frame.size())};
    return backend_->send(pair, std::span(&out, 1));
  }
  // What the socket gets: ten bytes of header, then the frame.
  Bytes heard() {
    pollfd wait{socket_.get(), POLLIN, 0};
    if (::poll(&wait, 1, 5000) != 1) return {};
    Bytes bytes(70'000);
    const ssize_t count = ::read(socket_.get(), bytes.data(), bytes.size());
    bytes.resize(count < 0 ? 0 : static_cast<size_t>(count));
    return bytes;
  }
  void give(VirtioNetHeader header, const Bytes& frame) {
    Bytes bytes(10);
    std::memcpy(bytes.data(), &header, bytes.size());
    bytes.insert(bytes.end(), frame.begin(), frame.end());
    ASSERT_EQ(::write(socket_.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()))
        << errno_text(errno);
  }

  static inline int count_ = 0;
  std::string name_;
  std::optional<Tap> tap_;
  std::unique_ptr<NetBackend> backend_;
  UniqueFd socket_;
};

TEST_F(TapBackendTest, OffersWhatTheKernelDoes) {
  EXPECT_EQ(backend_->offloads() & kOffloads, kOffloads);
  EXPECT_EQ(backend_->offloads() & net::kGuestUfo, 0u);
  const uint64_t udp = net::kGuestUso4 | net::kGuestUso6 | net::kHostUso;
  EXPECT_THAT(backend_->offloads() & udp, AnyOf(0u, udp));
  EXPECT_EQ(backend_->refused_features(), 0u);
}

TEST_F(TapBackendTest, FramesBothWays) {
  backend_->start(0);
  const Bytes frame = plain(200, 3);
  EXPECT_EQ(send({}, frame), 1u);
  Bytes got = heard();
  ASSERT_EQ(got.size(), 10 + frame.size());
  EXPECT_TRUE(std::equal(frame.begin(), frame.end(), got.begin() + 10));

  give({}, plain(300, 4));
  give({}, plain(100, 5));
  for (const Bytes& expected : {plain(300, 4), plain(100, 5)}) {
    const auto in = backend_->next(0);
    ASSERT_TRUE(in);
    EXPECT_EQ(Bytes(in->data.begin(), in->data.end()), expected);
    EXPECT_TRUE(backend_->next(0)) << "until it is taken";
    backend_->take(0);
  }
  EXPECT_FALSE(backend_->next(0));
  EXPECT_FALSE(backend_->broken());
}

TEST_F(TapBackendTest, StartDropsWhatCameBefore) {
  give({}, plain(300, 4));
  backend_->start(0);
  EXPECT_FALSE(backend_->next(0));
}

TEST_F(TapBackendTest, SegmentsPassWhole) {
  backend_->start(kOffloads);
  const VirtioNetHeader header{.flags = kNetNeedsChecksum,
                               .gso_type = 1,  // TCP over IPv4
                               .header_length = 54,
                               .gso_size = 1000,
                               .checksum_start = 34,
                               .checksum_offset = 16};
  const Bytes large = tcp(20'000);
  EXPECT_EQ(send(header, large), 1u);
  const Bytes got = heard();
  ASSERT_EQ(got.size(), 10 + large.size()) << "from the guest";
  EXPECT_EQ(got[1], std::byte{1});

  give(header, large);
  const auto in = backend_->next(0);
  ASSERT_TRUE(in);
  EXPECT_EQ(in->data.size(), large.size()) << "to the guest";
  EXPECT_EQ(in->header.gso_type, 1);
  EXPECT_EQ(in->header.gso_size, 1000);
  EXPECT_EQ(in->header.flags, kNetNeedsChecksum);
}

TEST_F(TapBackendTest, WhoTakesNoSegmentsGetsThemCut) {
  const VirtioNetHeader header{.flags = kNetNeedsChecksum,
                               .gso_type = 1,
                               .header_length = 54,
                               .gso_size = 1000,
                               .checksum_start = 34,
                               .checksum_offset = 16};
  backend_->start(kOffloads);
  backend_->set_offloads(0);
  give(header, tcp(5000));
  for (int i = 0; i < 5; ++i) {
    const auto in = backend_->next(0);
    ASSERT_TRUE(in) << i;
    EXPECT_EQ(in->data.size(), 54u + 1000);
    EXPECT_EQ(in->header.gso_type, 0);
    EXPECT_EQ(in->header.flags & kNetNeedsChecksum, 0) << "the checksum is there";
    backend_->take(0);
  }
  backend_->set_offloads(net::kGuestChecksum);
  give(header, tcp(900));
  const auto in = backend_->next(0);
  ASSERT_TRUE(in);
  EXPECT_EQ(in->header.flags & kNetNeedsChecksum, kNetNeedsChecksum);
}

TEST_F(TapBackendTest, HeadersThatMakeNoSenseLoseTheirFrame) {
  backend_->start(kOffloads);
  const Bytes frame = tcp(3000);
  for (const VirtioNetHeader& header :
       {VirtioNetHeader{.flags = kNetNeedsChecksum, .checksum_start = 65'000, .checksum_offset = 65'000},
        VirtioNetHeader{.flags = 0xff, .gso_type = 0x7f, .header_length = 65'535, .gso_size = 1},
        VirtioNetHeader{.gso_type = 1, .gso_size = 0}})
    EXPECT_EQ(send(header, frame), 1u) << "given back, whatever the kernel thinks of it";
  EXPECT_EQ(send({}, plain(64, 9)), 1u);
  Bytes got;
  do {
    got = heard();
  } while (!got.empty() && got.size() != 74);
  EXPECT_EQ(got.size(), 74u);
}

TEST_F(TapBackendTest, OnlyTheQueuesInUseGetFrames) {
  backend_->start(0);
  give({}, plain(100, 1));
  EXPECT_TRUE(backend_->next(0)) << "one pair after the start";
  backend_->take(0);
  backend_->set_pairs(2);
  EXPECT_EQ(send({}, plain(64, 2), 1), 1u);
  EXPECT_EQ(heard().size(), 74u) << "by the second queue";
  backend_->set_pairs(1);
  for (int i = 0; i < 20; ++i) give({}, plain(100, static_cast<uint8_t>(i)));
  int count = 0;
  for (; backend_->next(0); ++count) backend_->take(0);
  EXPECT_EQ(count, 20);
  EXPECT_FALSE(backend_->next(1));
  EXPECT_FALSE(backend_->broken()) << "a queue that is put aside is none that is gone";
}

TEST_F(TapBackendTest, ADeletedInterfaceIsNoticed) {
  backend_->start(0);
  EXPECT_FALSE(backend_->next(0));
  EXPECT_FALSE(backend_->broken());
  ASSERT_TRUE(test::run_ip("link del " + name_));
  EXPECT_FALSE(backend_->next(0));
  EXPECT_TRUE(backend_->broken());
  EXPECT_EQ(send({}, plain(64, 2)), 1u) << "dropped";
}

TEST_F(TapBackendTest, TheLoopHearsOfEachFrame) {
  backend_->start(0);
  auto loop = std::move(*EventLoop::create());
  int frames = 0;
  auto watch = loop->watch(backend_->fd(0), EPOLLIN | EPOLLOUT | EPOLLET, [&](uint32_t) {
    while (backend_->next(0)) {
      backend_->take(0);
      if (++frames == 3) return loop->stop();
      give({}, plain(100, 7));
    }
  });
  ASSERT_TRUE(watch);
  give({}, plain(100, 7));
  ASSERT_TRUE(loop->run());
  EXPECT_EQ(frames, 3);
}

}  // namespace
}  // namespace snug
