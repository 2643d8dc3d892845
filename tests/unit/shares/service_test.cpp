// A share's device and its server at work: requests over rings in memory that both have, without a VM.
#include "vmm/shares/share_service.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "devices/virtio/fs/fs.h"
#include "tests/unit/devices/virtio_fake_host.h"
#include "vmm/base/packet_socket.h"

namespace snug::test {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr auto kPatience = 20s;

// Interrupts of the rings go to eventfds of ours, unless there are none.
class ShareHost final : public FakeVirtioHost {
 public:
  using FakeVirtioHost::FakeVirtioHost;
  std::optional<VirtioRingPlace> ring_place(uint16_t queue) const override {
    const auto layout = layouts.find(queue);
    if (layout == layouts.end()) return std::nullopt;
    return VirtioRingPlace{layout->second, with_vectors ? interrupts.get() : -1};
  }
  void ring_elsewhere(uint16_t queue, int event_fd) override {
    elsewhere[queue] = event_fd;
    if (event_fd >= 0) kick(queue);
  }
  void interrupt(uint16_t queue) override { ++raised[queue]; }
  void kick(uint16_t queue) {
    const uint64_t one = 1;
    EXPECT_EQ(::write(elsewhere.at(queue), &one, sizeof one), 8);
  }

  std::map<uint16_t, VirtQueueLayout> layouts;
  std::map<uint16_t, int> elsewhere, raised;
  UniqueFd interrupts = *make_eventfd();
  bool with_vectors = true;
};

class ShareServiceTest : public testing::Test {
 protected:
  ShareServiceTest() {
    std::string name = "/tmp/snug-service-XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    folder = name;
    std::ofstream(folder / "file") << "of the host";
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
    device_end = UniqueFd(ends[0]);
    server_end = UniqueFd(ends[1]);
  }
  ~ShareServiceTest() override {
    device.reset();
    loop->stop();
    if (server.joinable()) server.join();
    service.reset();
    fs::remove_all(folder);
  }
  void serve() {
    ShareService::Share share;
    share.socket = std::move(server_end);
    share.root = UniqueFd(::open(folder.c_str(), O_PATH | O_CLOEXEC));
    share.proc_self_fd = UniqueFd(::open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC));
    share.failed = [this](const std::string& why) {
      failure = why;
      loop->stop();
    };
    service = *ShareService::create(*loop, std::move(share));
    server = std::thread([this] { (void)loop->run(); });
  }
  void make_device() {
    device =
        *VirtioFs::create({.tag = "work", .queues = 2, .queue_size = 16, .socket = device_end.get()}, memory);
    host = std::make_unique<ShareHost>(memory, 3);
    host->layouts = {{0, high.layout()}, {1, requests.layout()}};
  }
  void start(uint64_t features = kVirtioIndirect) { device->start(*host, features); }

  // A request and room for its answer, in the chain that begins at descriptor 2 * `slot`.
  template <class Arguments>
  void offer(uint32_t opcode, uint64_t node, const Arguments& arguments, uint16_t slot = 0) {
    fuse_in_header head{};
    head.len = sizeof head + sizeof arguments;
    head.opcode = opcode;
    head.nodeid = node;
    head.unique = 100 + slot;
    const uint64_t at = kRequests + slot * 0x10000;
    ASSERT_TRUE(memory.store(at, head));
    ASSERT_TRUE(memory.store(at + sizeof head, arguments));
    requests.chain(static_cast<uint16_t>(2 * slot), {{at, head.len, false}, {at + 0x8000, 0x1000, true}});
    requests.offer(static_cast<uint16_t>(2 * slot));
    host->kick(1);
  }
  // That many requests have been answered.
  bool answered(uint16_t count) {
    return eventually([&] { return requests.used_index() == count; });
  }
  static bool eventually(const std::function<bool()>& so) {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (!so()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(1ms);
    }
    return true;
  }
  bool device_hears(const std::function<bool()>& so) {
    return eventually([&] {
      device->server_ready();
      return so();
    });
  }
  template <class Answer>
  Answer answer(uint16_t slot = 0) const {
    return *memory.load<Answer>(kRequests + slot * 0x10000 + 0x8000 + sizeof(fuse_out_header));
  }
  fuse_out_header head_of_answer(uint16_t slot = 0) const {
    return *memory.load<fuse_out_header>(kRequests + slot * 0x10000 + 0x8000);
  }
  void begin_session() {
    offer(FUSE_INIT, 0, fuse_init_in{.major = 7, .minor = 38, .max_readahead = 1 << 17, .flags = 0});
    ASSERT_TRUE(answered(1));
    ASSERT_EQ(head_of_answer().error, 0);
  }

  static constexpr uint64_t kRequests = 0x200000;
  fs::path folder;
  UniqueFd device_end, server_end;
  GuestMemory memory = *GuestMemory::create_shared(kRam);
  RingDriver high{memory, 16, 0x10000};
  RingDriver requests{memory, 16, 0x40000};
  std::unique_ptr<EventLoop> loop = *EventLoop::create();
  std::unique_ptr<ShareService> service;
  std::thread server;
  std::string failure;
  std::unique_ptr<ShareHost> host;
  std::unique_ptr<VirtioFs> device;
};

TEST_F(ShareServiceTest, ConfigurationSaysTagAndQueues) {
  make_device();
  std::array<std::byte, 40> all{};
  device->read_config(0, all);
  EXPECT_STREQ(reinterpret_cast<const char*>(all.data()), "work");
  EXPECT_EQ(std::to_integer<int>(all[36]), 2);
  EXPECT_EQ(device->queue_sizes().size(), 3U);
}

TEST_F(ShareServiceTest, AnswersRequestsAndInterrupts) {
  serve();
  make_device();
  start();
  begin_session();
  EXPECT_EQ(head_of_answer().unique, 100U);
  EXPECT_EQ(answer<fuse_init_out>().major, 7U);
  EXPECT_TRUE(eventually([&] { return take_count(host->interrupts.get()) > 0; }));
  offer(FUSE_GETATTR, FUSE_ROOT_ID, fuse_getattr_in{});
  ASSERT_TRUE(answered(2));
  EXPECT_TRUE(S_ISDIR(answer<fuse_attr_out>().attr.mode));
}

TEST_F(ShareServiceTest, InterruptsByTheLoopWithoutVectors) {
  serve();
  make_device();
  host->with_vectors = false;
  start();
  begin_session();
  pollfd waiting{device->interrupt_fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&waiting, 1, 10'000), 1);
  device->interrupts_wanted();
  EXPECT_EQ(host->raised[1], 1);
}

TEST_F(ShareServiceTest, AResetIsAnsweredAndANewDriverBeginsAnew) {
  serve();
  make_device();
  for (int round = 0; round < 3; ++round) {
    requests.restart();
    memory.store<uint16_t>(requests.layout().used + 2, 0);
    start();
    begin_session();
    ASSERT_FALSE(device->stop());
    ASSERT_TRUE(device_hears([&] { return host->stopped_calls == round + 1; }));
    EXPECT_EQ(host->elsewhere[1], -1);
  }
}

TEST_F(ShareServiceTest, ARestartedMachineHasMemoryOfItsOwn) {
  serve();
  make_device();
  start();
  begin_session();
  device.reset();
  make_device();
  requests.restart();
  ASSERT_TRUE(memory.store<uint16_t>(requests.layout().used + 2, 0));
  start();
  begin_session();
}

TEST_F(ShareServiceTest, ABrokenRingStopsTheDevice) {
  serve();
  make_device();
  start();
  begin_session();
  requests.set_available_index(9999);
  host->kick(1);
  ASSERT_TRUE(device_hears([&] { return !host->complaint.empty(); }));
  EXPECT_THAT(host->complaint, HasSubstr("index"));
  EXPECT_FALSE(device->stop());
  EXPECT_TRUE(device_hears([&] { return host->stopped_calls == 1; }));
}

TEST_F(ShareServiceTest, AServerThatIsGoneStopsTheDevice) {
  make_device();
  start();
  server_end.reset();
  device->server_ready();
  EXPECT_THAT(host->complaint, HasSubstr("gone"));
  EXPECT_TRUE(device->stop());
}

// The guest moves interrupts as often as it likes, and the server may be slow.
TEST_F(ShareServiceTest, MovedInterruptsBlockNobodyAndArriveInTheEnd) {
  make_device();
  start();
  for (int i = 0; i < 100'000; ++i) device->interrupt_moved(1);
  serve();
  const UniqueFd elsewhere = *make_eventfd();
  host->interrupts = *duplicate(elsewhere.get());
  device->interrupt_moved(1);
  ASSERT_TRUE(device_hears([&] { return true; }));
  std::this_thread::sleep_for(10ms);
  device->server_ready();
  begin_session();
  uint16_t count = 1;
  EXPECT_TRUE(eventually([&] {
    device->server_ready();
    offer(FUSE_GETATTR, FUSE_ROOT_ID, fuse_getattr_in{}, 1);
    return answered(++count) && take_count(elsewhere.get()) > 0;
  }));
}

TEST_F(ShareServiceTest, WhatMakesNoSenseEndsTheServer) {
  serve();
  const std::string nonsense = "who are you?";
  const iovec part{const_cast<char*>(nonsense.data()), nonsense.size()};
  ASSERT_EQ(send_packet(device_end.get(), {&part, 1}), 0);
  server.join();
  EXPECT_EQ(failure, "a device says what makes no sense");
}

TEST_F(ShareServiceTest, MemoryThatCouldShrinkIsRefused) {
  serve();
  share::Call call;
  call.kind = static_cast<uint32_t>(share::CallKind::kAttach);
  call.argument = kRam;
  const UniqueFd file(::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  ASSERT_EQ(::ftruncate(file.get(), kRam), 0);
  const UniqueFd kick = *make_eventfd();
  const std::array descriptors{file.get(), kick.get(), kick.get()};
  const iovec part{&call, sizeof call};
  ASSERT_EQ(send_packet(device_end.get(), {&part, 1}, descriptors), 0);
  server.join();
  EXPECT_THAT(failure, HasSubstr("not a sealed file"));
}

TEST_F(ShareServiceTest, ADeviceThatGoesIsTheEnd) {
  serve();
  device_end.reset();
  server.join();
  EXPECT_EQ(failure, "");
}

}  // namespace
}  // namespace snug::test
