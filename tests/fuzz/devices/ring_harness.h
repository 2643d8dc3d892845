// A ring of either layout under any content, at any moment, and any use by its device.
#pragma once

#include <algorithm>
#include <vector>

#include "devices/virtio/queue.h"
#include "tests/fuzz/devices/input.h"

namespace snug::fuzz {

class RingHarness {
 public:
  static constexpr uint64_t kRam = 1 << 20;
  static constexpr uint64_t kBase = 0x1000;  // the ring's three parts, 0x400 bytes each

  explicit RingHarness(bool packed) : packed_(packed), memory_(std::move(*GuestMemory::create(kRam))) {}

  void run(Input& input) {
    start(input.take8());
    while (!input.empty()) step(input);
  }

 private:
  void start(uint8_t shape) {
    (void)memory_.zero(kBase, 0xc00);
    const auto size = static_cast<uint16_t>(packed_ ? 1 + (shape & 15) : 1u << (shape & 3));
    const VirtQueueFeatures features{(shape & 16) != 0, (shape & 32) != 0, packed_};
    FUZZ_CHECK(queue_.start({size, kBase, kBase + 0x400, kBase + 0x800}, features).empty());
    taken_.clear();
    broken_ = false;
    size_ = size;
  }

  void step(Input& input) {
    const uint8_t op = input.take8();
    switch (op & 7) {
      case 0:
        // Into the ring, or tables of indirect descriptors behind it.
        (void)memory_.write(kBase + input.take(2) % 0x2000, input.take_bytes(1 + (op >> 3)));
        break;
      case 1:
        // A descriptor that has good chances.
        {
          const uint64_t at = kBase + 16 * uint64_t{static_cast<uint8_t>(input.take8() % 32)};
          (void)memory_.store(at, input.take(3));
          (void)memory_.store(at + 8, static_cast<uint32_t>(input.take(2)));
          (void)memory_.store(at + 12, static_cast<uint16_t>(input.take(2)));
          (void)memory_.store(at + 14, static_cast<uint16_t>(input.take(2)));
        }
        break;
      case 2:
      case 3:
        pop();
        break;
      case 4:
        push(1 + (op >> 3) % 8, input);
        break;
      case 5:
        if (queue_.needs_interrupt()) FUZZ_CHECK(pushed_);
        pushed_ = false;
        break;
      case 6:
        if ((op & 8) != 0) {
          if (queue_.enable_notifications()) FUZZ_CHECK(!broken_);
        } else {
          queue_.disable_notifications();
        }
        break;
      default:
        if ((op >> 3) == 31) start(input.take8());
        // An entry more is available, in a split ring.
        if (!packed_)
          (void)memory_.store(kBase + 0x402,
                              static_cast<uint16_t>(*memory_.load<uint16_t>(kBase + 0x402) + 1));
        break;
    }
  }

  void pop() {
    const auto popped = queue_.pop(chain_);
    if (broken_) FUZZ_CHECK(popped == VirtQueue::Pop::kEmpty);
    if (popped == VirtQueue::Pop::kBroken) {
      FUZZ_CHECK(!queue_.why().empty() && !queue_.running());
      broken_ = true;
    }
    if (popped != VirtQueue::Pop::kChain) return;
    FUZZ_CHECK(chain_.readable.size() + chain_.writable.size() <= VirtRing::kMaxChain);
    for (const auto* buffers : {&chain_.readable, &chain_.writable})
      for (const VirtBuffer& buffer : *buffers)
        FUZZ_CHECK(buffer.length > 0 && memory_.contains(buffer.gpa, buffer.length));
    // The device names chains of a packed ring itself, and never two the same.
    if (packed_) FUZZ_CHECK(std::find(taken_.begin(), taken_.end(), chain_.head) == taken_.end());
    taken_.push_back(chain_.head);
    FUZZ_CHECK(taken_.size() <= size_);
  }

  void push(size_t count, Input& input) {
    used_.clear();
    while (count-- > 0 && !taken_.empty()) {
      const auto which = static_cast<ptrdiff_t>(input.take8() % taken_.size());
      used_.push_back({taken_[static_cast<size_t>(which)], input.take8()});
      taken_.erase(taken_.begin() + which);
    }
    FUZZ_CHECK(queue_.push(used_) == !broken_);
    pushed_ = pushed_ || !used_.empty();
  }

  const bool packed_;
  GuestMemory memory_;
  VirtQueue queue_{memory_};
  VirtChain chain_;
  std::vector<uint16_t> taken_;
  std::vector<VirtUsed> used_;
  bool broken_ = false;
  bool pushed_ = false;
  uint16_t size_ = 0;
};

}  // namespace snug::fuzz
