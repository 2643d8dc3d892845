#include "tests/unit/devices/net_driver.h"

namespace snug::test {
namespace {

class NetControlTest : public VirtioNetTest {
 protected:
  void start(uint64_t features, uint16_t pairs = 1) {
    rx.set_available_index(0);
    tx.set_available_index(0);
    control_queue = static_cast<uint16_t>((features & kMulti) != 0 ? 2 * pairs : 2);
    make(features | kControl, pairs);
  }
  // What the device answers; 0xaa is nothing.
  uint8_t command(const std::vector<uint8_t>& bytes, bool answerable = true) {
    EXPECT_TRUE(memory.write(kBuffers, std::as_bytes(std::span(bytes))));
    std::vector<Part> parts{{kBuffers, static_cast<uint32_t>(bytes.size()), false}};
    if (answerable) parts.push_back({kBuffers + 0x1000, 1, true});
    EXPECT_TRUE(memory.store(kBuffers + 0x1000, uint8_t{0xaa}));
    control.chain(0, parts);
    control.offer(0);
    net->queue_ready(control_queue);
    return *memory.load<uint8_t>(kBuffers + 0x1000);
  }
  uint16_t control_queue = 2;
};

TEST_F(NetControlTest, QueuePairs) {
  start(kMergeable | kMulti, 4);
  EXPECT_EQ(command({4, 0, 4, 0}), 0);
  EXPECT_EQ(backend->pairs, 4);
  EXPECT_EQ(command({4, 0, 1, 0}), 0);
  EXPECT_EQ(backend->pairs, 1);
  EXPECT_EQ(command({4, 0, 5, 0}), 1);
  EXPECT_EQ(command({4, 0, 0, 0}), 1);
  EXPECT_EQ(command({4, 0, 1}), 1);
  EXPECT_EQ(command({4, 0, 1, 0, 0}), 1);
  EXPECT_EQ(command({4, 1, 1, 0}), 1);
  EXPECT_EQ(command({0, 0, 1}), 1) << "not negotiated";
  EXPECT_EQ(command({4}), 1);
  EXPECT_EQ(host->complaint, "");
  command({4, 0, 1, 0}, false);
  EXPECT_NE(host->complaint, "");
}

TEST_F(NetControlTest, WithoutSeveralPairsTheControlQueueIsTheThird) {
  start(kMergeable | kControlRx, 4);
  EXPECT_EQ(command({0, 0, 1}), 0);
  EXPECT_EQ(command({4, 0, 1, 0}), 1) << "not negotiated";
}

TEST_F(NetControlTest, ReceiveModes) {
  start(kMergeable | kControlRx);
  EXPECT_EQ(command({0, 0, 1}), 0);
  EXPECT_EQ(command({0, 1, 0}), 0);
  EXPECT_EQ(command({0, 2, 1}), 1) << "of a feature that is not offered";
  EXPECT_EQ(command({0, 0}), 1);
  EXPECT_EQ(command({0, 0, 1, 1}), 1);
  // Two tables of addresses.
  std::vector<uint8_t> table{1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0};
  table.resize(table.size() + 12, 0x33);
  EXPECT_EQ(command(table), 0);
  EXPECT_EQ(command({1, 0, 0, 0, 0, 0, 0, 0, 0, 0}), 0) << "empty ones";
  EXPECT_EQ(command({1, 0, 0, 0, 0, 0}), 1);
  table.pop_back();
  EXPECT_EQ(command(table), 1);
  table.push_back(0);
  table.push_back(0);
  EXPECT_EQ(command(table), 1);
  EXPECT_EQ(command({1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}), 1);
  EXPECT_EQ(command({2, 0, 1, 0}), 1) << "VLAN filters are not offered";
}

TEST_F(NetControlTest, Address) {
  start(kMergeable | kControlMac);
  const auto address = [this] {
    std::array<std::byte, 6> bytes{};
    net->read_config(0, bytes);
    return std::to_integer<int>(bytes[5]);
  };
  EXPECT_EQ(command({1, 1, 2, 0, 0, 0, 0, 9}), 0);
  EXPECT_EQ(address(), 9);
  EXPECT_EQ(command({1, 1, 3, 0, 0, 0, 0, 7}), 1) << "a group's";
  EXPECT_EQ(command({1, 1, 0, 0, 0, 0, 0, 0}), 1);
  EXPECT_EQ(command({1, 1, 2, 0, 0, 0, 0}), 1);
  EXPECT_EQ(address(), 9);
  net->stop();
  EXPECT_EQ(address(), 5) << "its own again after a reset";
}

TEST_F(NetControlTest, AnnouncesItselfWhenTheCableIsBack) {
  start(kMergeable | kAnnounce);
  const auto status = [this] {
    std::array<std::byte, 2> bytes{};
    net->read_config(6, bytes);
    return load_le(std::span<const std::byte>(bytes));
  };
  EXPECT_EQ(status(), 1u);
  net->set_link(false);
  EXPECT_EQ(status(), 0u);
  net->set_link(true);
  EXPECT_EQ(status(), 3u);
  EXPECT_EQ(command({3, 0, 0}), 1);
  EXPECT_EQ(status(), 3u);
  EXPECT_EQ(command({3, 0}), 0);
  EXPECT_EQ(status(), 1u);
  start(kMergeable);
  net->set_link(false);
  net->set_link(true);
  EXPECT_EQ(status(), 1u) << "not asked of a driver that cannot";
}

TEST_F(NetControlTest, OffloadsAmongThoseNegotiated) {
  start(kMergeable | kControlOffloads | kChecksum | kGuestTso4);
  EXPECT_EQ(command({5, 0, 2, 0, 0, 0, 0, 0, 0, 0}), 0);
  EXPECT_EQ(backend->guest_offloads, kChecksum);
  EXPECT_EQ(command({5, 0, 0x82, 0, 0, 0, 0, 0, 0, 0}), 0);
  EXPECT_EQ(backend->guest_offloads, kChecksum | kGuestTso4);
  EXPECT_EQ(command({5, 0, 0, 1, 0, 0, 0, 0, 0, 0}), 1) << "TSO6";
  EXPECT_EQ(command({5, 0, 0, 0, 0, 0, 0, 0, 0, 0x80}), 1);
  EXPECT_EQ(command({5, 0, 2, 0, 0, 0}), 1);
  EXPECT_EQ(backend->guest_offloads, kChecksum | kGuestTso4);
}

TEST_F(NetControlTest, WhatIsOffered) {
  const uint64_t commands = kControl | kControlRx | kControlMac | kAnnounce;
  make(kMergeable);
  EXPECT_EQ(net->features() & (commands | kControlOffloads | kMulti), 0u) << "each command is a wait";
  EXPECT_EQ(net->queue_sizes().size(), 2u);
  control_wanted = true;
  start(kMergeable);
  EXPECT_EQ(net->features() & commands, commands);
  EXPECT_EQ(net->features() & (kControlOffloads | kMulti), 0u) << "nothing to switch";
  EXPECT_EQ(net->queue_sizes().size(), 3u);
  backend->can = kChecksum | kGuestTso4;
  EXPECT_NE(net->features() & kControlOffloads, 0u);
  backend->refuses = kMergeable;
  EXPECT_EQ(net->features() & kMergeable, 0u);
  start(kMergeable, 2);
  EXPECT_NE(net->features() & kMulti, 0u);
}

// --- a backend that works on rings by itself --------------------------------------------------------

class TakingBackend : public NetControlTest {
 protected:
  TakingBackend() {
    takes = true;
    control_wanted = true;
    start(kMergeable | kMulti, 2);
  }
};

TEST_F(TakingBackend, HasTheFirstPairFromTheStart) {
  EXPECT_EQ(backend->taken, (std::map<uint16_t, int>{{0, 1}}));
  EXPECT_EQ(host->elsewhere, (std::map<uint16_t, int>{{0, 100}, {1, 101}}));
  // Neither frames nor doorbells concern the device.
  transmit(0, frame_of(60));
  net->queue_ready(1);
  offer_buffer(0, 2000);
  backend->waiting.push_back(frame_of(60));
  net->backend_ready(0);
  EXPECT_TRUE(backend->sent.empty());
  EXPECT_EQ(tx.used_index(), 0);
  EXPECT_EQ(rx.used_index(), 0);
}

TEST_F(TakingBackend, GetsAndGivesBackPairsByCommand) {
  EXPECT_EQ(command({4, 0, 2, 0}), 0);
  EXPECT_EQ(backend->taken, (std::map<uint16_t, int>{{0, 1}, {1, 1}}));
  EXPECT_EQ(host->elsewhere[3], 103);
  EXPECT_EQ(command({4, 0, 2, 0}), 0);
  EXPECT_EQ(backend->taken[1], 1) << "it has it";
  EXPECT_EQ(command({4, 0, 1, 0}), 0);
  EXPECT_EQ(backend->taken, (std::map<uint16_t, int>{{0, 1}, {1, 0}}));
  EXPECT_EQ(host->elsewhere[3], -1);
  net->queue_ready(3);
  EXPECT_TRUE(backend->sent.empty()) << "where it left off only it knows";
  EXPECT_EQ(command({4, 0, 2, 0}), 0);
  EXPECT_EQ(backend->taken[1], 1);
  EXPECT_EQ(command({4, 0, 1, 0}), 0);
  backend->takes = false;
  command({4, 0, 2, 0});
  EXPECT_NE(host->complaint, "");
}

TEST_F(TakingBackend, GivesAllBackAtAReset) {
  EXPECT_EQ(command({4, 0, 2, 0}), 0);
  EXPECT_TRUE(net->stop());
  EXPECT_EQ(backend->taken, (std::map<uint16_t, int>{{0, 0}, {1, 0}}));
  EXPECT_EQ(host->elsewhere, (std::map<uint16_t, int>{{0, -1}, {1, -1}, {2, -1}, {3, -1}}));
  // A driver whose rings cannot be taken (no MSI-X, say) gets its frames all the same.
  backend->takes = false;
  net->start(*host, kMergeable);
  transmit(0, frame_of(60));
  net->queue_ready(1);
  EXPECT_EQ(backend->sent.size(), 1u);
}

TEST_F(TakingBackend, IsLeftAloneWithoutInterrupts) {
  net->stop();
  host->place = false;
  net->start(*host, kMergeable);
  EXPECT_EQ(backend->taken[0], 0);
  transmit(0, frame_of(60));
  net->queue_ready(1);
  EXPECT_EQ(backend->sent.size(), 1u);
}

TEST_F(TakingBackend, FollowsTheInterrupt) {
  net->interrupt_moved(1);
  EXPECT_EQ(backend->interrupts, (std::vector<std::pair<int, int>>{{1, 51}}));
  host->place = false;
  net->interrupt_moved(0);
  EXPECT_EQ(backend->interrupts.back(), (std::pair<int, int>{0, -1}));
  net->interrupt_moved(2);
  net->interrupt_moved(4);
  EXPECT_EQ(backend->interrupts.size(), 2u) << "not of pairs that it does not have";
}

TEST_F(TakingBackend, ABrokenRingAsksForAReset) {
  net->backend_ready(0);
  EXPECT_EQ(host->complaint, "");
  backend->ring_is_broken = true;
  net->backend_ready(0);
  EXPECT_NE(host->complaint, "");
}

TEST_F(TakingBackend, StopsWhileTheCableIsOut) {
  net->set_link(false);
  EXPECT_EQ(backend->taken[0], 0);
  net->set_link(true);
  EXPECT_EQ(backend->taken[0], 1);
}

}  // namespace
}  // namespace snug::test
