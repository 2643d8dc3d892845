// A transport without registers: queues over RAM, and a note of what the device asked for.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "devices/virtio/device.h"
#include "tests/unit/devices/virtio_driver.h"

namespace snug::test {

class FakeVirtioHost : public VirtioHost {
 public:
  FakeVirtioHost(const GuestMemory& memory, size_t queues) : memory_(memory) {
    for (size_t i = 0; i < queues; ++i) queues_.emplace_back(memory);
  }
  VirtQueue& queue(uint16_t index) override { return queues_.at(index); }
  const GuestMemory& memory() const override { return memory_; }
  void used(uint16_t queue) override { ++used_calls[queue]; }
  void config_changed() override { ++config_calls; }
  void config_updated() override {}
  void needs_reset(const std::string& why) override { complaint = why; }
  void again(uint16_t queue) override { again_calls.push_back(queue); }
  void stopped() override { ++stopped_calls; }
  void queue_stopped(uint16_t) override { ++queue_stopped_calls; }

  // Gives the device its further turns, until it wants no more or is broken; returns how many.
  int run_turns(VirtioDevice& device) {
    int turns = 0;
    for (; !again_calls.empty() && turns < 10000; ++turns) {
      const uint16_t queue = again_calls.front();
      again_calls.pop_front();
      if (complaint.empty()) device.queue_ready(queue);
    }
    return turns;
  }

  std::map<uint16_t, int> used_calls;
  std::deque<uint16_t> again_calls;
  int config_calls = 0, stopped_calls = 0, queue_stopped_calls = 0;
  std::string complaint;

 private:
  const GuestMemory& memory_;
  std::deque<VirtQueue> queues_;
};

// One queue of a device, driven by requests of one buffer each: descriptor i has `kBytes` at buffer(i).
class QueueDriver {
 public:
  static constexpr uint32_t kBytes = 0x10000;

  QueueDriver(const GuestMemory& memory, FakeVirtioHost& host, VirtioDevice& device, uint16_t index)
      : ring(memory, 32, 0x10000 + uint64_t{index} * 0x10000),
        memory_(memory),
        device_(device),
        index_(index),
        buffers_(0x400000 + uint64_t{index} * 32 * kBytes) {
    EXPECT_EQ(host.queue(index).start(ring.layout(), {.indirect = true, .event_idx = false}), "");
  }

  uint64_t buffer(uint16_t i) const { return buffers_ + uint64_t{i} * kBytes; }
  // Makes descriptor i available and rings.
  void give(uint16_t i, std::string_view text) {
    ASSERT_TRUE(memory_.write(buffer(i), std::as_bytes(std::span(text))));
    ring.chain(i, {{buffer(i), static_cast<uint32_t>(text.size()), false}});
    ring.offer(i);
    device_.queue_ready(index_);
  }
  void give_room(uint16_t i, uint32_t bytes) {
    ring.chain(i, {{buffer(i), bytes, true}});
    ring.offer(i);
    device_.queue_ready(index_);
  }
  uint16_t used() const { return ring.used_index(); }
  // What the device has written into the buffer of used entry `n`.
  std::string written(uint16_t n) const {
    std::string text(ring.used_length(n), ' ');
    EXPECT_TRUE(memory_.read(buffer(static_cast<uint16_t>(ring.used_id(n))),
                             std::as_writable_bytes(std::span(text))));
    return text;
  }

  RingDriver ring;

 private:
  const GuestMemory& memory_;
  VirtioDevice& device_;
  uint16_t index_;
  uint64_t buffers_;
};

}  // namespace snug::test
