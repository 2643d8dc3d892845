#include <array>
#include <deque>

#include "devices/virtio/queue.h"
#include "tests/unit/devices/fakes.h"
#include "tests/unit/devices/packed_driver.h"
#include "tests/unit/devices/ring.h"

namespace snug::test {
namespace {

constexpr VirtQueueFeatures kAll{.indirect = true, .event_idx = true, .packed = true};
constexpr VirtQueueFeatures kPlain{.indirect = false, .event_idx = false, .packed = true};
using Used = PackedDriver::Used;

struct SmallRing : Ring<PackedDriver> {
  explicit SmallRing(uint16_t size = 8, const VirtQueueFeatures& features = kAll) : Ring(size, features) {}
  // One request of one descriptor, there and back.
  void round() {
    driver.offer_buffer(0);
    ASSERT_EQ(pop(), VirtQueue::Pop::kChain);
    ASSERT_TRUE(queue.push(chain.head, 8));
    ASSERT_TRUE(driver.take_used());
  }
};

TEST(PackedRing, TakesChainsInOrderAndGivesThemBackInAny) {
  SmallRing ring;
  EXPECT_EQ(ring.pop(), VirtQueue::Pop::kEmpty);
  ring.driver.offer(7, {{0x100000, 16, false}, {0x200000, 512, true}, {0x300000, 1, true}});
  ring.driver.offer(0xbeef, {{0x400000, 4, false}});
  ASSERT_EQ(ring.pop(), VirtQueue::Pop::kChain);
  const uint16_t first = ring.chain.head;
  ASSERT_EQ(ring.chain.readable.size(), 1u);
  ASSERT_EQ(ring.chain.writable.size(), 2u);
  EXPECT_EQ(ring.chain.readable[0].gpa, 0x100000u);
  EXPECT_EQ(ring.chain.writable_bytes(), 513u);
  ASSERT_EQ(ring.pop(), VirtQueue::Pop::kChain);
  const uint16_t second = ring.chain.head;
  EXPECT_EQ(ring.pop(), VirtQueue::Pop::kEmpty);
  EXPECT_FALSE(ring.driver.take_used());
  EXPECT_TRUE(ring.queue.push(second, 0));
  EXPECT_EQ(ring.driver.take_used(1), (Used{0xbeef, 0, kDescAvailable | kDescUsed}));
  EXPECT_FALSE(ring.driver.take_used());
  EXPECT_TRUE(ring.queue.push(first, 513));
  EXPECT_EQ(ring.driver.take_used(3), (Used{7, 513, kDescAvailable | kDescUsed | kDescWrite}));
}

// Sizes that are no power of two are legal, and chains lie across the end of the ring.
TEST(PackedRing, WrapsManyTimes) {
  for (const uint16_t size : std::to_array<uint16_t>({1, 2, 3, 7, 8})) {
    SmallRing ring(size);
    uint32_t parts = 1;
    for (uint32_t i = 0; i < 3000; ++i) {
      std::vector<Part> chain(parts, {0x100000, 8, true});
      ring.driver.offer(static_cast<uint16_t>(i), chain);
      ASSERT_EQ(ring.pop(), VirtQueue::Pop::kChain) << size << " " << i;
      ASSERT_EQ(ring.chain.writable.size(), parts);
      ASSERT_TRUE(ring.queue.push(ring.chain.head, i + 1));
      const auto used = ring.driver.take_used(parts);
      ASSERT_TRUE(used) << size << " " << i;
      ASSERT_EQ(used->id, static_cast<uint16_t>(i));
      ASSERT_EQ(used->length, i + 1);
      ASSERT_EQ(ring.pop(), VirtQueue::Pop::kEmpty);
      parts = parts % size + 1;
    }
  }
}

// What both sides know stays the same over any order of taking and giving back, and several at once.
TEST(PackedRing, OutOfOrderForALongTime) {
  constexpr uint16_t kSize = 16;
  SmallRing ring(kSize);
  Random random(3);
  struct Chain {
    uint16_t id;
    uint32_t count;
    uint16_t head = 0;
  };
  std::deque<Chain> offered;
  std::vector<Chain> taken;
  std::vector<uint32_t> counts(kSize);
  std::vector<uint16_t> free_ids;
  for (uint16_t i = 0; i < kSize; ++i) free_ids.push_back(i);
  uint32_t room = kSize;
  for (int step = 0; step < 20000; ++step) {
    const auto count = static_cast<uint32_t>(1 + random.below(4));
    switch (random.below(3)) {
      case 0: {
        if (count > room) break;
        const uint16_t id = free_ids.back();
        free_ids.pop_back();
        ring.driver.offer(id, std::vector<Part>(count, {0x100000, 8, true}));
        counts[id] = count;
        offered.push_back({id, count});
        room -= count;
        break;
      }
      case 1:
        if (offered.empty()) {
          ASSERT_EQ(ring.pop(), VirtQueue::Pop::kEmpty);
          break;
        }
        ASSERT_EQ(ring.pop(), VirtQueue::Pop::kChain);
        ASSERT_EQ(ring.chain.writable.size(), offered.front().count);
        offered.front().head = ring.chain.head;
        taken.push_back(offered.front());
        offered.pop_front();
        break;
      default: {
        if (taken.empty()) break;
        std::vector<VirtUsed> batch;
        std::vector<uint16_t> ids;
        for (uint64_t i = random.below(taken.size()) + 1; i > 0; --i) {
          const auto which = static_cast<ptrdiff_t>(random.below(taken.size()));
          batch.push_back({taken[which].head, 8});
          ids.push_back(taken[which].id);
          taken.erase(taken.begin() + which);
        }
        ASSERT_TRUE(ring.queue.push(batch));
        for (const uint16_t id : ids) {
          const auto used = ring.driver.take_used(counts[id]);
          ASSERT_TRUE(used);
          ASSERT_EQ(used->id, id);
          room += counts[id];
          free_ids.push_back(id);
        }
        ASSERT_FALSE(ring.driver.take_used());
      }
    }
  }
}

TEST(PackedRing, IndirectTablesMayBeLargerThanTheRing) {
  SmallRing ring(4);
  constexpr uint64_t kTable = 0x50000;
  // 2.8.7: other flags than "write" do not count, and there are no links.
  for (uint16_t i = 0; i < 20; ++i)
    ring.driver.descriptor(kTable + 16u * i, 0x100000 + i * 0x1000u, 0x1000, 99,
                           i == 0 ? 0 : kDescWrite | kDescNext | kDescIndirect);
  ring.driver.next(kTable, 20 * 16, 5, kDescIndirect | kDescWrite);
  ASSERT_EQ(ring.pop(), VirtQueue::Pop::kChain);
  EXPECT_EQ(ring.chain.readable.size(), 1u);
  EXPECT_EQ(ring.chain.writable.size(), 19u);
  EXPECT_TRUE(ring.queue.push(ring.chain.head, 1));
  EXPECT_EQ(ring.driver.take_used(1)->id, 5);
}

TEST(PackedRing, SeveralAreSeenAtOnceOrNotAtAll) {
  SmallRing ring;
  std::vector<VirtUsed> batch;
  for (uint16_t i = 0; i < 3; ++i) {
    ring.driver.offer(i, {{0x100000, 8, true}, {0x200000, 8, true}});
    ASSERT_EQ(ring.pop(), VirtQueue::Pop::kChain);
    batch.push_back({ring.chain.head, 8});
  }
  ASSERT_TRUE(ring.queue.push(batch));
  for (uint16_t i = 0; i < 3; ++i) EXPECT_EQ(ring.driver.take_used(2)->id, i);
  EXPECT_TRUE(ring.queue.push(std::span<const VirtUsed>())) << "nothing at all is fine, too";
}

// 2.8.10, without places.
TEST(PackedRing, FlagsSuppress) {
  SmallRing ring(8, kPlain);
  ring.queue.disable_notifications();
  EXPECT_EQ(ring.driver.device_event_flags(), 1);
  EXPECT_FALSE(ring.queue.enable_notifications());
  EXPECT_EQ(ring.driver.device_event_flags(), 0);
  ring.driver.offer(0, {{0x100000, 8, true}});
  EXPECT_TRUE(ring.queue.enable_notifications()) << "one came meanwhile";
  ring.pop();
  EXPECT_FALSE(ring.queue.needs_interrupt()) << "nothing was pushed";
  ring.queue.push(ring.chain.head, 0);
  EXPECT_TRUE(ring.queue.needs_interrupt());
  EXPECT_FALSE(ring.queue.needs_interrupt()) << "nothing was pushed since";
  ring.driver.take_used();
  ring.driver.set_events(1);
  ring.round();
  EXPECT_FALSE(ring.queue.needs_interrupt());
  // A place that was not negotiated, and a value that does not exist: rather once too often.
  for (const uint16_t flags : std::to_array<uint16_t>({2, 3})) {
    ring.driver.set_events(flags, 5);
    ring.round();
    EXPECT_TRUE(ring.queue.needs_interrupt());
  }
}

TEST(PackedRing, PlacesSuppress) {
  SmallRing ring(4);
  const auto interrupts = [&ring](int rounds) {
    std::string answers;
    for (int i = 0; i < rounds; ++i) {
      ring.round();
      answers += ring.queue.needs_interrupt() ? 'y' : 'n';
    }
    return answers;
  };
  ring.driver.set_events(2, 2 | 0x8000);
  EXPECT_EQ(interrupts(4), "nnyn");
  // The second round: the wrap counter is 0 there.
  ring.driver.set_events(2, 3);
  EXPECT_EQ(interrupts(4), "nnny");
  ring.driver.set_events(2, 0 | 0x8000);
  EXPECT_EQ(interrupts(4), "ynnn");
  EXPECT_FALSE(ring.queue.enable_notifications());
  EXPECT_EQ(ring.driver.device_event_flags(), 2);
  EXPECT_EQ(ring.driver.device_event_place(), 0) << "place 0, wrap counter 0";
  ring.round();
  ring.queue.enable_notifications();
  EXPECT_EQ(ring.driver.device_event_place(), 1);
}

TEST(PackedRing, APlaceThatAChainSkipsCounts) {
  SmallRing ring(8);
  ring.driver.set_events(2, 2 | 0x8000);
  ring.driver.offer(0, std::vector<Part>(4, {0x100000, 8, true}));
  ASSERT_EQ(ring.pop(), VirtQueue::Pop::kChain);
  ring.queue.push(ring.chain.head, 8);
  EXPECT_TRUE(ring.queue.needs_interrupt());
  // Across the end of the ring: from 4 to 9, of which 8 is place 0 of the next round.
  ring.driver.take_used(4);
  ring.driver.set_events(2, 0);
  ring.driver.offer(0, std::vector<Part>(5, {0x100000, 8, true}));
  ASSERT_EQ(ring.pop(), VirtQueue::Pop::kChain);
  ring.queue.push(ring.chain.head, 8);
  EXPECT_TRUE(ring.queue.needs_interrupt());
}

// --- hostile drivers ---------------------------------------------------------------------------------

constexpr uint64_t kTable = 0x60000;

const HostileChain<PackedDriver> kHostile[] = {
    {"a chain without end",
     [](PackedDriver& d) {
       for (int i = 0; i < 8; ++i) d.next(0x100000, 8, 0, kDescNext);
     }},
    {"a chain whose second descriptor is not available",
     [](PackedDriver& d) { d.next(0x100000, 8, 0, kDescNext); }},
    {"a chain whose second descriptor has the wrong wrap counter",
     [](PackedDriver& d) {
       d.next(0x100000, 8, 0, kDescNext);
       d.descriptor(d.at(1), 0x100000, 8, 0, kDescUsed);
     }},
    {"a chain whose second descriptor is used",
     [](PackedDriver& d) {
       d.next(0x100000, 8, 0, kDescNext);
       d.descriptor(d.at(1), 0x100000, 8, 0, kDescUsed | kDescAvailable);
     }},
    {"buffer behind RAM", [](PackedDriver& d) { d.next(kRam, 1, 0, kDescWrite); }},
    {"buffer across the end of RAM", [](PackedDriver& d) { d.next(kRam - 4, 8, 0, kDescWrite); }},
    {"buffer that wraps", [](PackedDriver& d) { d.next(~uint64_t{0} - 3, 8, 0, kDescWrite); }},
    {"buffer in the MMIO hole", [](PackedDriver& d) { d.next(0xc0008000, 8, 0, 0); }},
    {"buffer of 4 GiB", [](PackedDriver& d) { d.next(0x100000, 0xffffffff, 0, 0); }},
    {"readable behind writable",
     [](PackedDriver& d) {
       d.offer(0, {{0x100000, 8, true}, {0x100000, 8, false}});
     }},
    {"indirect with next",
     [](PackedDriver& d) {
       d.next(kTable, 16, 0, kDescIndirect | kDescNext);
       d.next(0x100000, 8, 0, 0);
     }},
    {"indirect at the end of a list",
     [](PackedDriver& d) {
       d.next(0x100000, 8, 0, kDescNext);
       d.next(kTable, 16, 0, kDescIndirect);
     }},
    {"indirect of no bytes", [](PackedDriver& d) { d.next(kTable, 0, 0, kDescIndirect); }},
    {"indirect of half a descriptor", [](PackedDriver& d) { d.next(kTable, 24, 0, kDescIndirect); }},
    {"indirect behind RAM", [](PackedDriver& d) { d.next(kRam, 16, 0, kDescIndirect); }},
    {"indirect that wraps", [](PackedDriver& d) { d.next(~uint64_t{15}, 32, 0, kDescIndirect); }},
    {"indirect longer than any chain", [](PackedDriver& d) { d.next(kTable, 1025 * 16, 0, kDescIndirect); }},
    {"indirect with a buffer behind RAM",
     [](PackedDriver& d) {
       d.descriptor(kTable, kRam, 8, 0, 0);
       d.next(kTable, 16, 0, kDescIndirect);
     }},
    {"indirect with readable behind writable",
     [](PackedDriver& d) {
       d.descriptor(kTable, 0x100000, 8, 0, kDescWrite);
       d.descriptor(kTable + 16, 0x100000, 8, 0, 0);
       d.next(kTable, 32, 0, kDescIndirect);
     }},
};

TEST(PackedRing, HostileRingsBreakItOnceAndItStartsAnew) {
  expect_broken_once(std::span<const HostileChain<PackedDriver>>(kHostile), kAll);
}

TEST(PackedRing, WrongWrapCountersAreNothingAvailable) {
  SmallRing ring(4);
  for (const uint16_t flags : std::to_array<uint16_t>({0, kDescUsed, kDescUsed | kDescAvailable})) {
    ring.driver.descriptor(ring.driver.at(0), 0x100000, 8, 0, flags);
    EXPECT_EQ(ring.pop(), VirtQueue::Pop::kEmpty) << flags;
    EXPECT_FALSE(ring.queue.enable_notifications());
  }
  for (int i = 0; i < 4; ++i) ring.round();
  // The second round: now a descriptor with the first round's flags is none.
  ring.driver.descriptor(ring.driver.at(0), 0x100000, 8, 0, kDescAvailable);
  EXPECT_EQ(ring.pop(), VirtQueue::Pop::kEmpty);
  ring.driver.descriptor(ring.driver.at(0), 0x100000, 8, 0, kDescUsed);
  EXPECT_EQ(ring.pop(), VirtQueue::Pop::kChain);
}

TEST(PackedRing, NoMoreIsTakenThanTheRingHolds) { expect_no_more_than_it_holds<PackedDriver>(kAll); }

TEST(PackedRing, IndirectIsRefusedUnlessNegotiated) {
  SmallRing ring(8, kPlain);
  ring.driver.next(kTable, 16, 0, kDescIndirect);
  EXPECT_EQ(ring.pop(), VirtQueue::Pop::kBroken);
}

TEST(PackedRing, RefusesLayoutsThatCannotBe) {
  const GuestMemory memory = ram();
  VirtQueue queue(memory);
  for (const uint16_t size : std::to_array<uint16_t>({1, 3, 8, 1000, 1024, 32768}))
    EXPECT_EQ(queue.start({size, 0x10000, 0x9000, 0x9004}, kAll), "") << size;
  const NamedLayout bad[] = {
      {"size 0", {0, 0x10000, 0x11000, 0x12000}},
      {"size 32769", {32769, 0x10000, 0x11000, 0x12000}},
      {"descriptors unaligned", {8, 0x10008, 0x11000, 0x12000}},
      {"driver area unaligned", {8, 0x10000, 0x11002, 0x12000}},
      {"device area unaligned", {8, 0x10000, 0x11000, 0x12002}},
      {"descriptors across the end of RAM", {8, kRam - 64, 0x11000, 0x12000}},
      {"driver area wraps", {8, 0x10000, ~uint64_t{3}, 0x12000}},
      {"device area in the hole", {8, 0x10000, 0x11000, 0xd0000000}},
  };
  expect_refused(bad, kAll);
}

TEST(PackedRing, RandomRings) {
  const GuestMemory memory = ram();
  Random random(43);
  for (int round = 0; round < 3000; ++round) {
    PackedDriver driver(memory, 16);
    for (uint32_t i = 0; i < 16; ++i) {
      const uint64_t value = random.next();
      driver.descriptor(
          driver.at(i), value & 0xffffff, static_cast<uint32_t>(value >> 40) & 0xffff,
          static_cast<uint16_t>(value),
          static_cast<uint16_t>(random.below(4) == 0 ? value >> 32 : kDescAvailable | ((value >> 32) & 3)));
    }
    VirtQueue queue(memory);
    ASSERT_EQ(queue.start(driver.layout(), kAll), "");
    expect_an_end(memory, queue, 16, [&random] { return random.below(2) == 0; });
  }
}

}  // namespace
}  // namespace snug::test
