#include "devices/virtio/queue.h"

#include <array>

#include "tests/unit/devices/fakes.h"
#include "tests/unit/devices/ring.h"

namespace snug::test {
namespace {

constexpr VirtQueueFeatures kAll{.indirect = true, .event_idx = true};

struct SmallRing : Ring<RingDriver> {
  explicit SmallRing(uint16_t size = 8, const VirtQueueFeatures& features = kAll) : Ring(size, features) {}
};

TEST(VirtQueue, TakesChainsInOrderAndGivesThemBack) {
  SmallRing ring;
  EXPECT_EQ(ring.pop(), VirtQueue::Pop::kEmpty);
  ring.driver.chain(2, {{0x100000, 16, false}, {0x200000, 512, true}, {0x300000, 1, true}});
  ring.driver.chain(0, {{0x400000, 4, false}});
  ring.driver.offer(2);
  ring.driver.offer(0);
  ASSERT_EQ(ring.pop(), VirtQueue::Pop::kChain);
  EXPECT_EQ(ring.chain.head, 2);
  ASSERT_EQ(ring.chain.readable.size(), 1u);
  ASSERT_EQ(ring.chain.writable.size(), 2u);
  EXPECT_EQ(ring.chain.readable[0].gpa, 0x100000u);
  EXPECT_EQ(ring.chain.writable_bytes(), 513u);
  ASSERT_EQ(ring.pop(), VirtQueue::Pop::kChain);
  EXPECT_EQ(ring.chain.head, 0);
  EXPECT_EQ(ring.pop(), VirtQueue::Pop::kEmpty);
  // In any order.
  EXPECT_TRUE(ring.queue.push(0, 0));
  EXPECT_TRUE(ring.queue.push(2, 513));
  EXPECT_EQ(ring.driver.used_index(), 2);
  EXPECT_EQ(ring.driver.used_id(0), 0u);
  EXPECT_EQ(ring.driver.used_id(1), 2u);
  EXPECT_EQ(ring.driver.used_length(1), 513u);
}

TEST(VirtQueue, IndexesWrap) {
  SmallRing ring(4);
  ring.driver.chain(1, {{0x100000, 8, true}});
  for (uint32_t i = 0; i < 70000; ++i) {
    ring.driver.offer(1);
    ASSERT_EQ(ring.pop(), VirtQueue::Pop::kChain) << i;
    ASSERT_TRUE(ring.queue.push(1, i));
    ASSERT_EQ(ring.driver.used_length(static_cast<uint16_t>(i)), i);
  }
  EXPECT_EQ(ring.driver.used_index(), static_cast<uint16_t>(70000));
}

TEST(VirtQueue, IndirectTablesMayFollowOtherDescriptorsAndBeLargerThanTheRing) {
  SmallRing ring(4);
  constexpr uint64_t kTable = 0x50000;
  for (uint16_t i = 0; i < 20; ++i)
    ring.driver.descriptor(kTable, i, 0x100000 + i * 0x1000u, 0x1000,
                           i < 19 ? kDescNext | kDescWrite : kDescWrite, static_cast<uint16_t>(i + 1));
  ring.driver.descriptor(0, 0x90000, 16, kDescNext, 1);
  ring.driver.descriptor(1, kTable, 20 * 16, kDescIndirect);
  ring.driver.offer(0);
  ASSERT_EQ(ring.pop(), VirtQueue::Pop::kChain);
  EXPECT_EQ(ring.chain.readable_bytes(), 16u);
  EXPECT_EQ(ring.chain.writable.size(), 20u);
}

TEST(VirtQueue, EmptyBuffersAreLeftOut) {
  SmallRing ring;
  ring.driver.chain(0, {{0x100000, 0, false}, {0x100000, 8, true}, {0x100000, 0, true}});
  ring.driver.offer(0);
  ASSERT_EQ(ring.pop(), VirtQueue::Pop::kChain);
  EXPECT_TRUE(ring.chain.readable.empty());
  EXPECT_EQ(ring.chain.writable.size(), 1u);
}

TEST(VirtQueue, CopiesAcrossBuffers) {
  SmallRing ring;
  const std::vector<VirtBuffer> buffers{{0x100000, 3}, {0x200000, 5}};
  const std::array<std::byte, 6> data{std::byte{1}, std::byte{2}, std::byte{3},
                                      std::byte{4}, std::byte{5}, std::byte{6}};
  EXPECT_EQ(copy_to_chain(ring.memory, buffers, 1, data), 6u);
  EXPECT_EQ(copy_to_chain(ring.memory, buffers, 7, data), 1u) << "the buffers end";
  std::array<std::byte, 6> back{};
  EXPECT_EQ(copy_from_chain(ring.memory, buffers, 1, back), 6u);
  EXPECT_EQ(back, data);
  EXPECT_EQ(copy_from_chain(ring.memory, buffers, 9, back), 0u);
}

// 2.7.7 and 2.7.10, without event indexes.
TEST(VirtQueue, FlagsSuppress) {
  SmallRing ring(8, {.indirect = true, .event_idx = false});
  ring.driver.chain(0, {{0x100000, 8, true}});
  ring.queue.disable_notifications();
  EXPECT_EQ(ring.driver.used_flags(), 1);
  EXPECT_FALSE(ring.queue.enable_notifications());
  EXPECT_EQ(ring.driver.used_flags(), 0);
  ring.driver.offer(0);
  EXPECT_TRUE(ring.queue.enable_notifications()) << "one came meanwhile";
  ring.pop();
  ring.queue.push(0, 0);
  EXPECT_TRUE(ring.queue.needs_interrupt());
  EXPECT_FALSE(ring.queue.needs_interrupt()) << "nothing was pushed since";
  ring.driver.set_available_flags(1);
  ring.driver.offer(0);
  ring.pop();
  ring.queue.push(0, 0);
  EXPECT_FALSE(ring.queue.needs_interrupt());
}

TEST(VirtQueue, EventIndexesSuppress) {
  SmallRing ring;
  ring.driver.chain(0, {{0x100000, 8, true}});
  const auto round = [&ring] {
    ring.driver.offer(0);
    ASSERT_EQ(ring.pop(), VirtQueue::Pop::kChain);
    ASSERT_TRUE(ring.queue.push(0, 0));
  };
  ring.driver.set_used_event(2);
  round();
  EXPECT_FALSE(ring.queue.needs_interrupt());
  round();
  EXPECT_FALSE(ring.queue.needs_interrupt());
  round();
  EXPECT_TRUE(ring.queue.needs_interrupt()) << "the third is the one asked for";
  round();
  EXPECT_FALSE(ring.queue.needs_interrupt());
  EXPECT_FALSE(ring.queue.enable_notifications());
  EXPECT_EQ(ring.driver.available_event(), 4);
}

// --- hostile drivers ---------------------------------------------------------------------------------

constexpr uint64_t kTable = 0x50000;

const HostileChain<RingDriver> kHostile[] = {
    {"head out of range", [](RingDriver& d) { d.offer(8); }},
    {"head far out of range", [](RingDriver& d) { d.offer(0xffff); }},
    {"next out of range", [](RingDriver& d) { d.descriptor(0, 0x100000, 8, kDescNext, 8), d.offer(0); }},
    {"loop of one", [](RingDriver& d) { d.descriptor(0, 0x100000, 8, kDescNext, 0), d.offer(0); }},
    {"loop of two",
     [](RingDriver& d) {
       d.descriptor(0, 0x100000, 8, kDescNext, 1);
       d.descriptor(1, 0x100000, 8, kDescNext, 0);
       d.offer(0);
     }},
    {"buffer behind RAM",
     [](RingDriver& d) {
       d.chain(0, {{kRam, 1, true}}), d.offer(0);
     }},
    {"buffer across the end of RAM",
     [](RingDriver& d) {
       d.chain(0, {{kRam - 4, 8, true}}), d.offer(0);
     }},
    {"buffer that wraps",
     [](RingDriver& d) {
       d.chain(0, {{~uint64_t{0} - 3, 8, true}}), d.offer(0);
     }},
    {"buffer in the MMIO hole",
     [](RingDriver& d) {
       d.chain(0, {{0xc0008000, 8, true}}), d.offer(0);
     }},
    {"buffer of 4 GiB",
     [](RingDriver& d) {
       d.chain(0, {{0x100000, 0xffffffff, true}}), d.offer(0);
     }},
    {"readable behind writable",
     [](RingDriver& d) {
       d.chain(0, {{0x100000, 8, true}, {0x100000, 8, false}}), d.offer(0);
     }},
    {"indirect with next",
     [](RingDriver& d) { d.descriptor(0, kTable, 16, kDescIndirect | kDescNext, 1), d.offer(0); }},
    {"indirect of no bytes", [](RingDriver& d) { d.descriptor(0, kTable, 0, kDescIndirect), d.offer(0); }},
    {"indirect of half a descriptor",
     [](RingDriver& d) { d.descriptor(0, kTable, 24, kDescIndirect), d.offer(0); }},
    {"indirect behind RAM", [](RingDriver& d) { d.descriptor(0, kRam, 16, kDescIndirect), d.offer(0); }},
    {"indirect that wraps",
     [](RingDriver& d) { d.descriptor(0, ~uint64_t{15}, 32, kDescIndirect), d.offer(0); }},
    {"indirect inside indirect",
     [](RingDriver& d) {
       d.descriptor(0, kTable, 16, kDescIndirect);
       d.descriptor(kTable, 0, kTable + 16, 16, kDescIndirect, 0);
       d.offer(0);
     }},
    {"indirect to itself",
     [](RingDriver& d) {
       d.descriptor(0, kTable, 16, kDescIndirect);
       d.descriptor(kTable, 0, 0x100000, 8, kDescNext, 0);
       d.offer(0);
     }},
    {"indirect next out of its table",
     [](RingDriver& d) {
       d.descriptor(0, kTable, 32, kDescIndirect);
       d.descriptor(kTable, 0, 0x100000, 8, kDescNext, 2);
       d.offer(0);
     }},
    {"indirect longer than any chain",
     [](RingDriver& d) {
       d.descriptor(0, kTable, 2000 * 16, kDescIndirect);
       for (uint16_t i = 0; i < 2000; ++i)
         d.descriptor(kTable, i, 0x100000, 8, kDescNext, static_cast<uint16_t>(i + 1));
       d.offer(0);
     }},
    {"available index far ahead", [](RingDriver& d) { d.set_available_index(9); }},
    {"available index behind", [](RingDriver& d) { d.set_available_index(0xffff); }},
};

TEST(VirtQueue, HostileRingsBreakItOnceAndItStartsAnew) {
  expect_broken_once(std::span<const HostileChain<RingDriver>>(kHostile), kAll);
}

TEST(VirtQueue, NoMoreIsTakenThanTheRingHolds) { expect_no_more_than_it_holds<RingDriver>(kAll); }

TEST(VirtQueue, IndirectIsRefusedUnlessNegotiated) {
  SmallRing ring(8, {.indirect = false, .event_idx = false});
  ring.driver.descriptor(0, kTable, 16, kDescIndirect);
  ring.driver.offer(0);
  EXPECT_EQ(ring.pop(), VirtQueue::Pop::kBroken);
}

TEST(VirtQueue, RefusesLayoutsThatCannotBe) {
  const GuestMemory memory = ram();
  VirtQueue queue(memory);
  const VirtQueueLayout good{8, 0x10000, 0x11000, 0x12000};
  EXPECT_EQ(queue.start(good, kAll), "");
  const NamedLayout bad[] = {
      {"size 0", {0, 0x10000, 0x11000, 0x12000}},
      {"size 3", {3, 0x10000, 0x11000, 0x12000}},
      {"size 65535", {65535, 0x10000, 0x11000, 0x12000}},
      {"descriptors unaligned", {8, 0x10008, 0x11000, 0x12000}},
      {"driver area unaligned", {8, 0x10000, 0x11001, 0x12000}},
      {"device area unaligned", {8, 0x10000, 0x11000, 0x12002}},
      {"descriptors behind RAM", {8, kRam, 0x11000, 0x12000}},
      {"descriptors across the end of RAM", {8, kRam - 64, 0x11000, 0x12000}},
      {"driver area wraps", {8, 0x10000, ~uint64_t{1}, 0x12000}},
      {"device area wraps", {8, 0x10000, 0x11000, ~uint64_t{3}}},
      {"device area in the hole", {8, 0x10000, 0x11000, 0xd0000000}},
  };
  expect_refused(bad, kAll);
}

// Rings of random bytes: every answer is one of the three, and it always ends.
TEST(VirtQueue, RandomRings) {
  const GuestMemory memory = ram();
  Random random(42);
  for (int round = 0; round < 3000; ++round) {
    RingDriver driver(memory, 16);
    for (uint64_t at = 0; at < 16 * 16; at += 8) {
      // Half of the numbers are small: they get past the first checks.
      const uint64_t value = random.next();
      driver.put(driver.layout().descriptors + at, random.below(2) == 0 ? value & 0x0007000f000fffff : value);
    }
    for (uint64_t i = 0; i < 16; ++i)
      driver.put(driver.layout().available + 4 + 2 * i, static_cast<uint16_t>(random.below(18)));
    driver.set_available_index(static_cast<uint16_t>(random.below(18)));
    VirtQueue queue(memory);
    ASSERT_EQ(queue.start(driver.layout(), kAll), "");
    expect_an_end(memory, queue, 16, [] { return true; });
  }
}

}  // namespace
}  // namespace snug::test
