// A driver without manners: rings and buffers made from fuzz input, for any device.
#pragma once

#include <deque>
#include <string>

#include "devices/virtio/device.h"
#include "tests/fuzz/devices/input.h"
#include "vmm/base/checked.h"

namespace snug::fuzz {

// Guest memory of 2 MiB. Queue i has its ring at 0x10000 * i (16 entries); descriptors, available entries and
// whatever else lies in RAM are written by the input.
class VirtioHarness final : public VirtioHost {
 public:
  static constexpr uint64_t kRam = 2 * kMiB;
  static constexpr uint16_t kSize = 16;

  explicit VirtioHarness(VirtioDevice& device)
      : device_(device), memory_(std::move(*GuestMemory::create(kRam))) {
    for (size_t i = 0; i < device.queue_sizes().size(); ++i) queues_.emplace_back(memory_);
  }

  VirtQueue& queue(uint16_t index) override {
    FUZZ_CHECK(index < queues_.size());
    return queues_[index];
  }
  const GuestMemory& memory() const override { return memory_; }
  void used(uint16_t queue) override { FUZZ_CHECK(queue < queues_.size()); }
  void config_changed() override {}
  void config_updated() override {}
  void needs_reset(const std::string& why) override {
    FUZZ_CHECK(!why.empty());
    broken_ = true;
  }
  void again(uint16_t queue) override { again_.push_back(queue); }
  void stopped() override {}
  void queue_stopped(uint16_t) override {}

  // One of the driver's steps; what it is lies in `op`, the rest in the input.
  void step(uint8_t op, Input& input) {
    const auto index = static_cast<uint16_t>(input.take8() % queues_.size());
    const uint64_t ring = 0x10000 * uint64_t{index};
    switch (op % 8) {
      case 0:
        restart(input.take(1));
        break;
      case 1: {  // a descriptor
        const uint64_t at = ring + 16 * (input.take8() % kSize);
        put(at, input.take(4), 8);
        put(at + 8, input.take(3), 4);
        put(at + 12, input.take8() & 7, 2);
        put(at + 14, input.take8() % kSize, 2);
        break;
      }
      case 2: {  // a good one: a buffer of up to 4 KiB
        const uint8_t number = input.take8() % kSize;
        const uint8_t flags = input.take8();
        put(ring + 16 * number, 0x100000 + 0x1000 * uint64_t{number}, 8);
        put(ring + 16 * number + 8, input.take(2) % 4096, 4);
        put(ring + 16 * number + 12, flags & 3, 2);
        put(ring + 16 * number + 14, (number + 1) % kSize, 2);
        break;
      }
      case 3: {  // what a buffer holds
        const uint64_t at = 0x100000 + 0x1000 * uint64_t{static_cast<uint8_t>(input.take8() % kSize)};
        (void)memory_.write(at, input.take_bytes(input.take8()));
        break;
      }
      case 4:  // offers a chain
        put(ring + kAvailable + 4 + 2 * (offered_[index % offered_.size()] % kSize), input.take8() % kSize,
            2);
        put(ring + kAvailable + 2, ++offered_[index % offered_.size()], 2);
        notify(index);
        break;
      case 5:
        put(ring + kAvailable + 2, input.take(2), 2);
        notify(index);
        break;
      case 6: {  // configuration
        std::array<std::byte, 8> bytes{};
        const uint64_t offset = input.take8();
        const size_t width = size_t{1} << (input.take8() % 4);
        if ((op & 8) != 0) {
          store(bytes, input.take(8));
          device_.write_config(offset, std::span(bytes).first(width));
        }
        device_.read_config(offset, std::span(bytes).first(width));
        break;
      }
      case 7:
        if (!started_) break;
        FUZZ_CHECK(device_.stop_queue(index));
        queues_[index].stop();
        if ((op & 8) != 0) start_queue(index);
        break;
    }
  }

  void finish() {
    if (started_) FUZZ_CHECK(device_.stop());
  }
  bool started() const { return started_; }

 private:
  static constexpr uint64_t kAvailable = 0x1000;
  static constexpr uint64_t kUsed = 0x2000;

  static void store(std::span<std::byte> out, uint64_t value) {
    for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::byte>(value >> (8 * i));
  }
  void put(uint64_t gpa, uint64_t value, size_t width) {
    std::array<std::byte, 8> bytes{};
    store(bytes, value);
    (void)memory_.write(gpa, std::span(bytes).first(width));
  }
  void restart(uint64_t features) {
    finish();
    broken_ = false;
    again_.clear();
    offered_ = {};
    for (uint16_t i = 0; i < queues_.size(); ++i) start_queue(i);
    device_.start(*this, features & device_.features());
    started_ = true;
  }
  void start_queue(uint16_t index) {
    const uint64_t ring = 0x10000 * uint64_t{index};
    put(ring + kAvailable + 2, 0, 2);
    offered_[index % offered_.size()] = 0;
    (void)queues_[index].start({kSize, ring, ring + kAvailable, ring + kUsed}, {.indirect = true});
  }
  // As the transport does it: a device that has asked for a reset is left alone.
  void notify(uint16_t index) {
    if (!started_ || broken_) return;
    device_.queue_ready(index);
    for (int turns = 0; turns < 8 && !again_.empty() && !broken_; ++turns) {
      const uint16_t queue = again_.front();
      again_.pop_front();
      device_.queue_ready(queue);
    }
  }

  VirtioDevice& device_;
  GuestMemory memory_;
  std::deque<VirtQueue> queues_;
  std::deque<uint16_t> again_;
  std::array<uint16_t, 16> offered_{};
  bool started_ = false;
  bool broken_ = false;
};

}  // namespace snug::fuzz
