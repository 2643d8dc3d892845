// The guest's side of a network device for these tests: frames out and in. And a backend that keeps what it
// gets.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "devices/virtio/net/net.h"
#include "tests/unit/devices/virtio_fake_host.h"
#include "vmm/base/endian.h"

namespace snug::test {
using Bytes = std::vector<std::byte>;

constexpr uint64_t kMergeable = uint64_t{1} << 15, kChecksum = uint64_t{1} << 1;
constexpr uint64_t kControl = uint64_t{1} << 17, kMulti = uint64_t{1} << 22;
constexpr uint64_t kControlRx = uint64_t{1} << 18, kControlMac = uint64_t{1} << 23;
constexpr uint64_t kAnnounce = uint64_t{1} << 21, kControlOffloads = uint64_t{1} << 2;
constexpr uint64_t kGuestTso4 = uint64_t{1} << 7;
constexpr size_t kHeader = 12;

inline Bytes frame_of(size_t size, uint8_t seed = 1) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(seed + 7 * i + i / 256);
  return bytes;
}

class FakeNetBackend final : public NetBackend {
 public:
  uint64_t offloads() const override { return can; }
  uint64_t refused_features() const override { return refuses; }
  void start(uint64_t) override { ++starts; }
  void set_offloads(uint64_t features) override { guest_offloads = features; }
  void set_pairs(uint16_t count) override { pairs = count; }
  size_t send(uint16_t, std::span<const OutFrame> frames) override {
    size_t count = 0;
    for (const OutFrame& frame : frames) {
      if (sent.size() >= limit) break;
      Bytes bytes;
      for (const iovec& part : frame.parts) {
        const auto* from = static_cast<const std::byte*>(part.iov_base);
        bytes.insert(bytes.end(), from, from + part.iov_len);
      }
      EXPECT_EQ(bytes.size(), frame.length);
      sent.push_back(std::move(bytes));
      headers.push_back(frame.header);
      ++count;
    }
    return count;
  }
  void flush(uint16_t) override { ++flushes; }
  std::optional<InFrame> next(uint16_t) override {
    if (waiting.empty()) return std::nullopt;
    return InFrame{{.flags = kNetChecksumGood}, waiting.front()};
  }
  void take(uint16_t) override { waiting.pop_front(); }
  int fd(uint16_t) const override { return -1; }
  bool broken() const override { return is_broken; }
  std::optional<Kicks> take_over(uint16_t pair, const GuestMemory&, const VirtioRingPlace&,
                                 const VirtioRingPlace&) override {
    if (!takes) return std::nullopt;
    ++taken[pair];
    return Kicks{100 + 2 * pair, 101 + 2 * pair};
  }
  void let_go(uint16_t pair) override { --taken[pair]; }
  void interrupt_moved(uint16_t pair, bool transmit, int event_fd) override {
    interrupts.emplace_back(2 * pair + (transmit ? 1 : 0), event_fd);
  }
  bool ring_broken(uint16_t) override { return ring_is_broken; }

  std::vector<Bytes> sent;
  std::vector<VirtioNetHeader> headers;
  uint64_t can = 0, refuses = 0, guest_offloads = 0;
  uint16_t pairs = 0;
  bool is_broken = false, takes = false, ring_is_broken = false;
  std::map<uint16_t, int> taken;  // how often each pair was taken over and not let go of
  std::vector<std::pair<int, int>> interrupts;
  std::deque<Bytes> waiting;
  size_t limit = 1000;
  int starts = 0, flushes = 0;
};

// Rings that a backend may have, unless there is no `place` for that.
class NetHost final : public FakeVirtioHost {
 public:
  using FakeVirtioHost::FakeVirtioHost;
  std::optional<VirtioRingPlace> ring_place(uint16_t queue) const override {
    if (!place) return std::nullopt;
    return VirtioRingPlace{{}, 50 + queue};
  }
  void ring_elsewhere(uint16_t queue, int event_fd) override { elsewhere[queue] = event_fd; }

  bool place = true;
  std::map<uint16_t, int> elsewhere;
};

constexpr uint64_t kBuffers = 0x200000;

class VirtioNetTest : public testing::Test {
 protected:
  VirtioNetTest()
      : memory(ram()), rx(memory, 64, 0x10000), tx(memory, 64, 0x40000), control(memory, 64, 0x70000) {
    make(kMergeable | kChecksum);
  }
  void make(uint64_t features, uint16_t pairs = 1) {
    auto owned = std::make_unique<FakeNetBackend>();
    backend = owned.get();
    backend->takes = takes;
    const bool has_control = control_wanted || (features & kControl) != 0;
    net = std::make_unique<VirtioNet>(NetConfig{.name = "net[0]",
                                                .mac = {2, 1, 2, 3, 4, 5},
                                                .mtu = 1500,
                                                .pairs = pairs,
                                                .control = has_control,
                                                .broken = broken},
                                      std::move(owned));
    host = std::make_unique<NetHost>(memory, net->queue_sizes().size());
    ASSERT_EQ(host->queue(0).start(rx.layout(), {.indirect = true, .event_idx = false}), "");
    ASSERT_EQ(host->queue(1).start(tx.layout(), {.indirect = true, .event_idx = false}), "");
    if (has_control) {
      const auto index = static_cast<uint16_t>((features & kMulti) != 0 ? 2 * pairs : 2);
      ASSERT_EQ(host->queue(index).start(control.layout(), {.indirect = true, .event_idx = false}), "");
    }
    net->start(*host, features);
  }
  // A frame of the guest behind a header, in parts of the given sizes.
  void transmit(uint16_t head, const Bytes& frame, std::vector<uint32_t> cuts = {}) {
    Bytes all(kHeader);
    all.insert(all.end(), frame.begin(), frame.end());
    const uint64_t at = kBuffers + uint64_t{head} * 0x20000;
    ASSERT_TRUE(memory.write(at, all));
    std::vector<Part> parts;
    uint64_t done = 0;
    for (const uint32_t cut : cuts) {
      parts.push_back({at + done, cut, false});
      done += cut;
    }
    if (done < all.size()) parts.push_back({at + done, static_cast<uint32_t>(all.size() - done), false});
    tx.chain(head, parts);
    tx.offer(head);
  }
  void offer_buffer(uint16_t head, uint32_t size) {
    rx.chain(head, {{kBuffers + uint64_t{head} * 0x20000, size, true}});
    rx.offer(head);
  }
  Bytes buffer(uint16_t head, size_t size) {
    Bytes bytes(size);
    EXPECT_TRUE(memory.read(kBuffers + uint64_t{head} * 0x20000, bytes));
    return bytes;
  }
  // What lies behind the header of the `count` buffers from used entry `first` on.
  Bytes received(uint16_t first, uint16_t count) {
    Bytes all;
    for (uint16_t i = 0; i < count; ++i) {
      const Bytes part = buffer(static_cast<uint16_t>(rx.used_id(first + i)), rx.used_length(first + i));
      all.insert(all.end(), part.begin() + (i == 0 ? kHeader : 0), part.end());
    }
    return all;
  }

  GuestMemory memory;
  RingDriver rx, tx, control;
  FakeNetBackend* backend = nullptr;
  bool control_wanted = false;
  bool takes = false;
  std::function<void()> broken;
  std::unique_ptr<NetHost> host;
  std::unique_ptr<VirtioNet> net;
};

}  // namespace snug::test
