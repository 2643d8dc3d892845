// What the tests of both layouts of a ring share: a ring in RAM of its own, and what is expected of any.
#pragma once

#include <functional>
#include <span>

#include "devices/virtio/queue.h"
#include "tests/unit/devices/virtio_driver.h"

namespace snug::test {

// A driver's side, RingDriver or PackedDriver, and the device's.
template <class Driver>
struct Ring {
  explicit Ring(uint16_t size, const VirtQueueFeatures& features)
      : memory(ram()), driver(memory, size), queue(memory) {
    EXPECT_EQ(queue.start(driver.layout(), features), "");
  }
  VirtQueue::Pop pop() { return queue.pop(chain); }

  GuestMemory memory;
  Driver driver;
  VirtQueue queue;
  VirtChain chain;
};

// What a driver that breaks the rules writes into a ring of 8.
template <class Driver>
struct HostileChain {
  const char* name;
  std::function<void(Driver&)> write;
};

// Each breaks the queue, which says so once; started anew it works.
template <class Driver>
void expect_broken_once(std::span<const HostileChain<Driver>> chains, const VirtQueueFeatures& features) {
  for (const HostileChain<Driver>& hostile : chains) {
    SCOPED_TRACE(hostile.name);
    Ring<Driver> ring(8, features);
    hostile.write(ring.driver);
    EXPECT_EQ(ring.pop(), VirtQueue::Pop::kBroken);
    EXPECT_NE(ring.queue.why(), "");
    EXPECT_EQ(ring.pop(), VirtQueue::Pop::kEmpty) << "said once";
    EXPECT_FALSE(ring.queue.push(0, 0));
    EXPECT_FALSE(ring.queue.needs_interrupt());
    EXPECT_FALSE(ring.queue.enable_notifications());
    ring.queue.disable_notifications();
    ring.driver.restart();
    ASSERT_EQ(ring.queue.start(ring.driver.layout(), features), "");
    ring.driver.offer_buffer(0);
    EXPECT_EQ(ring.pop(), VirtQueue::Pop::kChain);
    EXPECT_TRUE(ring.queue.push(ring.chain.head, 8));
  }
}

// A driver that makes a chain available again before it has got it back.
template <class Driver>
void expect_no_more_than_it_holds(const VirtQueueFeatures& features) {
  Ring<Driver> ring(4, features);
  for (uint16_t i = 0; i < 5; ++i) {
    ring.driver.offer_buffer(0);
    EXPECT_EQ(ring.pop(), i < 4 ? VirtQueue::Pop::kChain : VirtQueue::Pop::kBroken) << i;
  }
}

struct NamedLayout {
  const char* name;
  VirtQueueLayout layout;
};

inline void expect_refused(std::span<const NamedLayout> layouts, const VirtQueueFeatures& features) {
  const GuestMemory memory = ram();
  VirtQueue queue(memory);
  for (const auto& [name, layout] : layouts) {
    EXPECT_NE(queue.start(layout, features), "") << name;
    EXPECT_FALSE(queue.running()) << name;
  }
}

// Whatever a ring of `size` holds: every buffer that it gives is in RAM, and there is an end.
inline void expect_an_end(const GuestMemory& memory, VirtQueue& queue, int size,
                          const std::function<bool()>& gives_back) {
  VirtChain chain;
  int taken = 0;
  while (queue.pop(chain) == VirtQueue::Pop::kChain) {
    ++taken;
    for (const auto* buffers : {&chain.readable, &chain.writable})
      for (const VirtBuffer& buffer : *buffers) ASSERT_TRUE(memory.contains(buffer.gpa, buffer.length));
    if (gives_back()) queue.push(chain.head, 0);
  }
  ASSERT_LE(taken, size);
}

}  // namespace snug::test
