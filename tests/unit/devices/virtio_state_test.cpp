// The state of rings and of the transport: saved in the middle of work, and gone on with elsewhere.
#include <gmock/gmock.h>

#include "tests/unit/devices/packed_driver.h"
#include "tests/unit/devices/ring.h"
#include "tests/unit/devices/virtio_pci_driver.h"
#include "vmm/core/state.h"

namespace snug::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr VirtQueueFeatures kSplit{.indirect = true, .event_idx = true};
constexpr VirtQueueFeatures kPacked{.indirect = true, .event_idx = true, .packed = true};

// One section of a state: what `save` writes into it.
class Section {
 public:
  explicit Section(const std::function<void(SectionWriter&)>& save) {
    StateWriter writer;
    save(writer.section("it", 1));
    state_ = *StateReader::parse(writer.finish());
  }
  SectionReader read() { return *state_->section("it", 1); }

 private:
  std::optional<StateReader> state_;
};

template <class Driver>
struct Layout;
template <>
struct Layout<RingDriver> {
  static constexpr VirtQueueFeatures kFeatures = kSplit;
};
template <>
struct Layout<PackedDriver> {
  static constexpr VirtQueueFeatures kFeatures = kPacked;
};

template <class Driver>
class RingStateTest : public testing::Test {
 protected:
  RingStateTest() : ring(8, Layout<Driver>::kFeatures), other(ring.memory) {}
  // Another queue where the first one stood.
  void move() {
    Section section([&](SectionWriter& out) { ring.queue.save(out); });
    ASSERT_EQ(other.start(ring.driver.layout(), Layout<Driver>::kFeatures), "");
    SectionReader in = section.read();
    other.restore(in);
    ASSERT_TRUE(in.finish()) << in.finish().error().text();
  }
  std::vector<VirtChain> take(VirtQueue& queue) {
    std::vector<VirtChain> all;
    for (VirtChain chain; queue.pop(chain) == VirtQueue::Pop::kChain;) all.push_back(std::move(chain));
    return all;
  }

  Ring<Driver> ring;
  VirtQueue other;
};
using Drivers = testing::Types<RingDriver, PackedDriver>;
TYPED_TEST_SUITE(RingStateTest, Drivers);

TYPED_TEST(RingStateTest, GoesOnWhereItStood) {
  for (uint16_t id = 0; id < 3; ++id) {
    this->ring.driver.offer_buffer(id);
    ASSERT_EQ(this->ring.pop(), VirtQueue::Pop::kChain);
    ASSERT_TRUE(this->ring.queue.push(this->ring.chain.head, 8));
  }
  this->move();
  EXPECT_TRUE(this->take(this->other).empty()) << "nothing is taken twice";
  for (uint16_t id = 0; id < 8; ++id) this->ring.driver.offer_buffer(id);
  const auto all = this->take(this->other);
  ASSERT_EQ(all.size(), 8u);
  for (const VirtChain& chain : all) EXPECT_TRUE(this->other.push(chain.head, 8));
  EXPECT_TRUE(this->other.needs_interrupt());
}

TYPED_TEST(RingStateTest, WhatWasPutBackComesFirstAndInOrder) {
  for (uint16_t id = 0; id < 4; ++id) this->ring.driver.offer_buffer(id);
  auto held = this->take(this->ring.queue);
  ASSERT_EQ(held.size(), 4u);
  // One is done; three wait.
  ASSERT_TRUE(this->ring.queue.push(held[1].head, 8));
  for (const size_t i : {size_t{3}, size_t{2}, size_t{0}}) this->ring.queue.put_back(held[i]);
  EXPECT_TRUE(this->ring.queue.available());
  EXPECT_TRUE(this->ring.queue.enable_notifications()) << "there is something to pop";
  this->move();
  this->ring.driver.offer_buffer(7);
  const auto all = this->take(this->other);
  ASSERT_EQ(all.size(), 4u);
  for (const VirtChain& chain : all) {
    EXPECT_EQ(chain.writable_bytes(), 8u);
    EXPECT_TRUE(this->other.push(chain.head, 8));
  }
  EXPECT_FALSE(this->other.available());
}

TYPED_TEST(RingStateTest, TheOneThatWasSavedGoesOnToo) {
  for (uint16_t id = 0; id < 2; ++id) this->ring.driver.offer_buffer(id);
  auto held = this->take(this->ring.queue);
  for (; !held.empty(); held.pop_back()) this->ring.queue.put_back(held.back());
  Section section([&](SectionWriter& out) { this->ring.queue.save(out); });
  EXPECT_EQ(this->take(this->ring.queue).size(), 2u);
}

TYPED_TEST(RingStateTest, AtAnyPlaceOfTheRing) {
  for (uint32_t round = 0; round < 40; ++round) {
    SCOPED_TRACE(round);
    Ring<TypeParam> fresh(8, Layout<TypeParam>::kFeatures);
    for (uint32_t i = 0; i < round; ++i) {
      fresh.driver.offer_buffer(static_cast<uint16_t>(i % 8));
      ASSERT_EQ(fresh.pop(), VirtQueue::Pop::kChain);
      ASSERT_TRUE(fresh.queue.push(fresh.chain.head, 8));
    }
    Section section([&](SectionWriter& out) { fresh.queue.save(out); });
    VirtQueue second(fresh.memory);
    ASSERT_EQ(second.start(fresh.driver.layout(), Layout<TypeParam>::kFeatures), "");
    SectionReader in = section.read();
    second.restore(in);
    ASSERT_TRUE(in.finish());
    fresh.driver.offer_buffer(1);
    VirtChain chain;
    ASSERT_EQ(second.pop(chain), VirtQueue::Pop::kChain);
    EXPECT_TRUE(second.push(chain.head, 8));
    EXPECT_EQ(second.pop(chain), VirtQueue::Pop::kEmpty);
  }
}

TYPED_TEST(RingStateTest, HostileStatesAreRefusedOrHarmless) {
  for (uint16_t id = 0; id < 4; ++id) this->ring.driver.offer_buffer(id);
  auto held = this->take(this->ring.queue);
  for (; !held.empty(); held.pop_back()) this->ring.queue.put_back(held.back());
  StateWriter writer;
  this->ring.queue.save(writer.section("it", 1));
  const auto whole = writer.finish();
  // Past the head of the file and of the section, before its checksum; which of them are not right any more.
  constexpr size_t kContent = 28 + 8 + 2;
  const auto content = std::span(whole).subspan(kContent, whole.size() - kContent - 4);
  for (size_t at = 0; at < content.size(); ++at)
    for (const int value : {0, 1, 0x7f, 0xff}) {
      std::vector<std::byte> changed(content.begin(), content.end());
      changed[at] = static_cast<std::byte>(value);
      VirtQueue second(this->ring.memory);
      ASSERT_EQ(second.start(this->ring.driver.layout(), Layout<TypeParam>::kFeatures), "");
      SectionReader in("it", 1, changed);
      second.restore(in);
      if (!in.finish()) continue;
      expect_an_end(this->ring.memory, second, 16, [] { return true; });
    }
}

// --- the transport --------------------------------------------------------------------------------------

class VirtioStateTest : public VirtioPciTest {
 protected:
  // Another transport, with a device of its own, where this one stands.
  Result<void> move() {
    auto made = VirtioPci::create(second_device, line, 16, {memory, second_doorbells, second_vectors});
    EXPECT_TRUE(made);
    second = std::move(*made);
    EXPECT_TRUE(second_root.add(1, *second));
    EXPECT_TRUE(second->lock()->map_doorbells(0xc0000000));
    Section config([&](SectionWriter& out) { root.save(out); });
    EXPECT_TRUE(transport->lock()->settle());
    Section state([&](SectionWriter& out) { transport->lock()->save(out); });
    SectionReader config_in = config.read();
    second_root.restore(config_in);
    SNUG_TRY(config_in.finish());
    SectionReader in = state.read();
    second->lock()->restore(in);
    return in.finish();
  }
  uint64_t second_in(uint64_t offset, size_t width) {
    std::array<std::byte, 8> bytes{};
    second->lock()->read(offset, std::span(bytes).first(width));
    return load_le(std::span<const std::byte>(bytes).first(width));
  }

  FakeDoorbells second_doorbells;
  FakeVectors second_vectors;
  FakeDevice second_device;
  std::unique_ptr<Synced<VirtioPci>> second;
  PciRoot second_root;
};

TEST_F(VirtioStateTest, ADeviceAtWorkGoesOn) {
  config_out(4, 2, 6);
  enable_msix();
  program(0, 0x31);
  program(1, 0x32);
  out(kConfigVector, 2, 0);
  bring_up(1);
  serve();
  ASSERT_TRUE(move());
  EXPECT_EQ(second_device.starts, 1);
  EXPECT_EQ(second_device.negotiated, device.negotiated);
  for (const uint64_t offset : {kDriverFeature, kQueueDescriptors, kQueueDriver, kQueueDevice})
    EXPECT_EQ(second_in(offset, 4), in(offset, 4)) << offset;
  for (const uint64_t offset : {kConfigVector, kQueueSize, kQueueVector, kQueueEnable})
    EXPECT_EQ(second_in(offset, 2), in(offset, 2)) << offset;
  EXPECT_EQ(second_in(kStatus, 1), 15u);
  EXPECT_EQ(second_in(kGeneration, 1), in(kGeneration, 1)) << "nothing has changed for the guest";
  // Requests go on.
  driver.chain(0, {{0x100000, 8, true}});
  driver.offer(0);
  VirtChain chain;
  ASSERT_EQ(second_device.host->queue(0).pop(chain), VirtQueue::Pop::kChain);
  EXPECT_EQ(second_device.host->queue(0).pop(chain), VirtQueue::Pop::kEmpty) << "the one before is done";
  EXPECT_GT(second_doorbells.bound, 0);
}

TEST_F(VirtioStateTest, ItIsWokenWithItsDoorbellsAndTheGuestWithInterrupts) {
  enable_msix();
  program(1, 0x32);
  bring_up(1);
  ASSERT_TRUE(move());
  second->lock()->wake(true);
  EXPECT_EQ(take_count(second->lock()->doorbell_fd(0)), 1u);
  EXPECT_EQ(take_count(second_vectors.all[1]->event_fd()), 1u);
}

TEST_F(VirtioStateTest, WhatIsNoMoreAsItWasIsTold) {
  bring_up();
  second_device.first_byte = 7;
  ASSERT_TRUE(move());
  EXPECT_NE(second_in(kGeneration, 1), in(kGeneration, 1));
}

TEST_F(VirtioStateTest, ADriverThatIsNotReadyStaysSo) {
  negotiate(kVirtioVersion1);
  ASSERT_TRUE(move());
  EXPECT_EQ(second_device.starts, 0);
  EXPECT_EQ(second_in(kStatus, 1), 11u);
}

TEST_F(VirtioStateTest, AResetUnderWayIsWaitedFor) {
  bring_up();
  device.stops_at_once = false;
  out(kStatus, 1, 0);
  EXPECT_FALSE(transport->lock()->settle());
  static_cast<VirtioHost&>(*device.host).stopped();
  EXPECT_TRUE(transport->lock()->settle());
}

}  // namespace
}  // namespace snug::test
