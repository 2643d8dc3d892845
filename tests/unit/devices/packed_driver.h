// The guest's side of a packed ring (virtio 1.2, 2.8), and anything else that a hostile one could write.
#pragma once

#include <optional>
#include <vector>

#include "tests/unit/devices/virtio_driver.h"

namespace snug::test {

constexpr uint16_t kDescAvailable = 1 << 7;
constexpr uint16_t kDescUsed = 1 << 15;

class PackedDriver {
 public:
  PackedDriver(const GuestMemory& memory, uint16_t size, uint64_t base = 0x10000)
      : memory_(memory), layout_{size, base, base + 0x80000, base + 0x80004} {}

  const VirtQueueLayout& layout() const { return layout_; }
  uint64_t at(uint32_t index) const { return layout_.descriptors + 16 * uint64_t{index}; }

  void descriptor(uint64_t gpa_of_it, uint64_t gpa, uint32_t length, uint16_t id, uint16_t flags) {
    put(gpa_of_it, gpa);
    put(gpa_of_it + 8, length);
    put(gpa_of_it + 12, id);
    put(gpa_of_it + 14, flags);
  }
  // The flags of a descriptor that is available where the driver is now.
  uint16_t available_flags() const { return wrap_ ? kDescAvailable : kDescUsed; }
  // Writes the next descriptor of the ring.
  void next(uint64_t gpa, uint32_t length, uint16_t id, uint16_t flags) {
    descriptor(at(next_), gpa, length, id, static_cast<uint16_t>(flags | available_flags()));
    advance(next_, wrap_, 1);
  }
  void offer(uint16_t id, const std::vector<Part>& parts) {
    for (size_t i = 0; i < parts.size(); ++i)
      next(parts[i].gpa, parts[i].length, id,
           static_cast<uint16_t>((parts[i].writable ? kDescWrite : 0) |
                                 (i + 1 < parts.size() ? kDescNext : 0)));
  }
  // A chain of one buffer for the device to write into, made available.
  void offer_buffer(uint16_t id) { offer(id, {{0x100000, 8, true}}); }
  struct Used {
    uint16_t id;
    uint32_t length;
    uint16_t flags;
    bool operator==(const Used&) const = default;
  };
  // The next used descriptor, whose chain had `count` descriptors.
  std::optional<Used> take_used(uint32_t count = 1) {
    const auto flags = get<uint16_t>(at(used_) + 14);
    const bool available = (flags & kDescAvailable) != 0;
    if (available != used_wrap_ || ((flags & kDescUsed) != 0) != used_wrap_) return std::nullopt;
    const Used used{get<uint16_t>(at(used_) + 12), get<uint32_t>(at(used_) + 8), flags};
    advance(used_, used_wrap_, count);
    return used;
  }
  // Asks for interrupts: 0 all, 1 none, 2 at a place.
  void set_events(uint16_t flags, uint16_t place = 0) {
    put(layout_.available, place);
    put(layout_.available + 2, flags);
  }
  uint16_t device_event_place() const { return get<uint16_t>(layout_.used); }
  uint16_t device_event_flags() const { return get<uint16_t>(layout_.used + 2); }
  // The ring is empty again.
  void restart() {
    next_ = used_ = 0;
    wrap_ = used_wrap_ = true;
    for (uint32_t i = 0; i < layout_.size; ++i) descriptor(at(i), 0, 0, 0, 0);
  }

  template <class T>
  void put(uint64_t gpa, T value) {
    ASSERT_TRUE(memory_.store(gpa, value));
  }
  template <class T>
  T get(uint64_t gpa) const {
    return *memory_.load<T>(gpa);
  }

 private:
  void advance(uint32_t& index, bool& wrap, uint32_t by) const {
    index += by;
    if (index < layout_.size) return;
    index -= layout_.size;
    wrap = !wrap;
  }

  const GuestMemory& memory_;
  VirtQueueLayout layout_;
  uint32_t next_ = 0, used_ = 0;
  bool wrap_ = true, used_wrap_ = true;
};

}  // namespace snug::test
