// A share's device and its server, over rings in memory that both have, without a VM.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "devices/virtio/fs/fs.h"
#include "tests/unit/devices/virtio_fake_host.h"
#include "vmm/shares/share_service.h"

namespace snug::test {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kPatience{20};

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
      if (!has_failed) failure = why;
      has_failed = true;
      loop->stop();
    };
    failure.clear();
    has_failed = false;
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

  // A request and room for its answer, in the chain that begins at descriptor 2 * `slot`. Linux has the
  // header in a buffer by itself, which takes a descriptor more.
  enum class Header { kWithArguments, kByItself };
  template <class Arguments>
  void offer(uint32_t opcode, uint64_t node, const Arguments& arguments, uint16_t slot = 0,
             Header header = Header::kWithArguments) {
    fuse_in_header head{};
    head.len = sizeof head + sizeof arguments;
    head.opcode = opcode;
    head.nodeid = node;
    head.unique = 100 + slot;
    const uint64_t at = header_of(slot);
    ASSERT_TRUE(memory.store(at, head));
    ASSERT_TRUE(memory.store(at + sizeof head, arguments));
    const auto first = static_cast<uint16_t>(2 * slot);
    std::vector<Part> parts{{at, head.len, false}, {at + 0x8000, 0x1000, true}};
    if (header == Header::kByItself) {
      parts[0].length = sizeof head;
      parts.insert(parts.begin() + 1, {at + sizeof head, sizeof arguments, false});
    }
    requests.chain(first, parts);
    requests.offer(first);
    host->kick(1);
  }
  static uint64_t header_of(uint16_t slot) { return kRequests + slot * 0x10000; }
  // That many requests have been answered.
  bool answered(uint16_t count) {
    return eventually([&] { return requests.used_index() == count; });
  }
  static bool eventually(const std::function<bool()>& so) {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (!so()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
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
    return *memory.load<Answer>(header_of(slot) + 0x8000 + sizeof(fuse_out_header));
  }
  fuse_out_header head_of_answer(uint16_t slot = 0) const {
    return *memory.load<fuse_out_header>(header_of(slot) + 0x8000);
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
  std::atomic<bool> has_failed = false;
  std::unique_ptr<ShareHost> host;
  std::unique_ptr<VirtioFs> device;
};

}  // namespace snug::test
