// The packed ring, virtio 1.2, 2.8: one ring of descriptors that driver and device write in turn, and a
// structure of each side that says of what it wants to hear.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <vector>

#include "devices/virtio/ring.h"
#include "devices/virtio/ring_layout.h"
#include "vmm/base/assertion.h"

namespace snug {
namespace {

// 2.8.13: a descriptor. The flags are written last and read first.
struct Descriptor {
  uint64_t address;
  uint32_t length;
  uint16_t id;
  uint16_t flags;
};
static_assert(sizeof(Descriptor) == kDescriptorSize);
constexpr uint64_t kFlags = offsetof(Descriptor, flags);

// 2.8.1: which of both sides a descriptor belongs to, by comparison with the ring's wrap counter.
constexpr uint16_t kAvailable = 1 << 7;
constexpr uint16_t kUsed = 1 << 15;

// 2.8.4: a used descriptor, which has no address.
struct UsedDescriptor {
  uint32_t length;
  uint16_t id;
};
constexpr uint64_t kUsedBegin = offsetof(Descriptor, length);
constexpr size_t kUsedBytes = offsetof(Descriptor, flags) - offsetof(Descriptor, length);

// 2.8.14: event suppression.
struct Events {
  uint16_t place;  // of the descriptor to hear of; bit 15: its wrap counter
  uint16_t flags;
};
static_assert(sizeof(Events) == 4);
constexpr uint16_t kEventsOn = 0;
constexpr uint16_t kEventsOff = 1;
constexpr uint16_t kEventsAtPlace = 2;
constexpr uint16_t kEventsMask = 3;
constexpr uint16_t kWrapBit = 1 << 15;

// A place in the ring and the value of the wrap counter there.
struct Cursor {
  uint32_t index = 0;
  bool wrap = true;

  void advance(uint32_t by, uint32_t size) {
    index += by;
    if (index < size) return;
    index -= size;
    wrap = !wrap;
  }
};

bool is_available(uint16_t flags, bool wrap) {
  return ((flags & kAvailable) != 0) == wrap && ((flags & kUsed) != 0) != wrap;
}

class PackedRing final : public VirtRing {
 public:
  PackedRing(const GuestMemory& memory, const VirtQueueLayout& layout, const VirtQueueFeatures& features)
      : memory_(memory), layout_(layout), features_(features), taken_(layout.size), free_(layout.size) {
    for (uint32_t i = 0; i < layout.size; ++i) free_[i] = static_cast<uint16_t>(layout.size - 1 - i);
  }

  Pop pop(VirtChain& chain) override;
  void push(std::span<const VirtUsed> chains) override;
  bool needs_interrupt() override;
  bool enable_notifications() override;
  void disable_notifications() override;
  bool available() const override;
  void save(SectionWriter& out) const override;
  void restore(SectionReader& in) override;
  void save_taken(uint16_t head, SectionWriter& out) const override;
  void restore_taken(VirtChain& chain, SectionReader& in) override;

 private:
  // A chain that the device has, by the name that it knows it by: the driver's own ids need not be unique.
  struct Taken {
    uint16_t id = 0;
    uint16_t count = 0;  // descriptors of the ring; 0: not taken
  };

  uint64_t at(uint32_t index) const { return layout_.descriptors + kDescriptorSize * index; }
  bool walk(uint16_t first_flags, VirtChain& chain, Taken& taken, std::string& why) const;
  bool walk_indirect(const Descriptor& descriptor, VirtChain& chain, std::string& why) const;

  const GuestMemory& memory_;
  const VirtQueueLayout layout_;
  const VirtQueueFeatures features_;
  Cursor available_;          // the next descriptor to take
  Cursor used_;               // the next one to give back
  uint32_t in_flight_ = 0;    // descriptors taken and not yet given back
  uint32_t unsignalled_ = 0;  // descriptors given back since the last needs_interrupt(), at most the size
  std::vector<Taken> taken_;
  std::vector<uint16_t> free_;  // indexes of taken_
};

VirtRing::Pop PackedRing::pop(VirtChain& chain) {
  const auto flags = memory_.load<uint16_t>(at(available_.index) + kFlags);
  if (!flags) return broken("the descriptor ring is not in RAM");
  if (!is_available(*flags, available_.wrap)) return Pop::kEmpty;
  // The driver makes the first descriptor of a list available after all the rest of it (2.8.6).
  std::atomic_thread_fence(std::memory_order_acquire);
  Taken taken;
  std::string why;
  if (!walk(*flags, chain, taken, why)) return broken(std::move(why));
  // There is one: each of those taken has a descriptor of the ring at least.
  chain.head = free_.back();
  free_.pop_back();
  taken_[chain.head] = taken;
  in_flight_ += taken.count;
  available_.advance(taken.count, layout_.size);
  return Pop::kChain;
}

bool PackedRing::walk(uint16_t first_flags, VirtChain& chain, Taken& taken, std::string& why) const {
  chain.readable.clear();
  chain.writable.clear();
  const auto wrong = [&why](std::string what) {
    why = std::move(what);
    return false;
  };
  Cursor cursor = available_;
  for (uint32_t count = 1;; ++count) {
    if (count > kMaxChain) return wrong("a chain that is too long");
    // Descriptors that the device has not given back cannot be available: the driver is a round ahead, or
    // the chain has no end.
    if (in_flight_ + count > layout_.size)
      return wrong(fmt::format("more descriptors are available than the queue size {}", layout_.size));
    Descriptor descriptor{};
    const auto bytes = std::as_writable_bytes(std::span(&descriptor, 1));
    // The first one's flags have been read, and must not be read again.
    if (!memory_.read(at(cursor.index), count == 1 ? bytes.first(kFlags) : bytes))
      return wrong("the descriptor ring is not in RAM");
    if (count == 1) descriptor.flags = first_flags;
    const uint16_t flags = descriptor.flags;
    if (!is_available(flags, cursor.wrap))
      return wrong(fmt::format("descriptor {} of a chain is not available", cursor.index));  // 2.8.6
    cursor.advance(1, layout_.size);
    const bool last = (flags & kDescriptorNext) == 0;
    if ((flags & kDescriptorIndirect) != 0) {
      // 2.8.5: not in a list with others.
      if (!features_.indirect) return wrong("an indirect descriptor, which was not negotiated");
      if (count > 1 || !last) return wrong("an indirect descriptor in a list");
      if (!walk_indirect(descriptor, chain, why)) return false;
    } else if (!add_buffer(memory_, descriptor.address, descriptor.length, (flags & kDescriptorWrite) != 0,
                           chain, why)) {
      return false;
    }
    if (!last) continue;
    // 2.8.6: the last one has the id.
    taken = {descriptor.id, static_cast<uint16_t>(count)};
    return true;
  }
}

// 2.8.7: a table is as long as it says; of its descriptors only the write flag counts.
bool PackedRing::walk_indirect(const Descriptor& descriptor, VirtChain& chain, std::string& why) const {
  if (!check_indirect(memory_, descriptor.address, descriptor.length, why)) return false;
  const uint64_t count = descriptor.length / kDescriptorSize;
  if (count > kMaxChain) {
    why = fmt::format("an indirect table of {} descriptors", count);
    return false;
  }
  for (uint64_t i = 0; i < count; ++i) {
    const auto entry = memory_.load<Descriptor>(descriptor.address + kDescriptorSize * i);
    if (!entry) {
      why = "an indirect table that is not in RAM";
      return false;
    }
    const bool writable = (entry->flags & kDescriptorWrite) != 0;
    if (!add_buffer(memory_, entry->address, entry->length, writable, chain, why)) return false;
  }
  return true;
}

// Writes that fail meet RAM that check_packed_ring() has seen: they cannot.
void PackedRing::push(std::span<const VirtUsed> chains) {
  const uint32_t first = used_.index;
  uint16_t first_flags = 0;
  for (size_t i = 0; i < chains.size(); ++i) {
    SNUG_ASSERT(chains[i].head < taken_.size() && taken_[chains[i].head].count > 0);
    Taken& taken = taken_[chains[i].head];
    // 2.8.4: the length counts only with the write flag.
    const auto flags = static_cast<uint16_t>((used_.wrap ? kAvailable | kUsed : 0) |
                                             (chains[i].written != 0 ? kDescriptorWrite : 0));
    const UsedDescriptor used{chains[i].written, taken.id};
    (void)memory_.write(at(used_.index) + kUsedBegin, std::as_bytes(std::span(&used, 1)).first(kUsedBytes));
    if (i == 0) {
      first_flags = flags;
    } else {
      (void)memory_.store(at(used_.index) + kFlags, flags);
    }
    used_.advance(taken.count, layout_.size);
    in_flight_ -= taken.count;
    unsignalled_ = std::min<uint32_t>(unsignalled_ + taken.count, layout_.size);
    taken.count = 0;
    free_.push_back(chains[i].head);
  }
  // The driver looks at the first one's flags before anything behind it: they come last (2.8.9).
  std::atomic_thread_fence(std::memory_order_release);
  (void)memory_.store(at(first) + kFlags, first_flags);
}

bool PackedRing::needs_interrupt() {
  if (unsignalled_ == 0) return false;
  const auto since = static_cast<int64_t>(unsignalled_);
  unsignalled_ = 0;
  // The used descriptors must be out before the driver's wish is read: the driver looks the other way round.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const auto [place, flags] = memory_.load<Events>(layout_.available).value_or(Events{0, kEventsOn});
  if ((flags & kEventsMask) == kEventsOff) return false;
  if ((flags & kEventsMask) != kEventsAtPlace || !features_.event_idx) return true;
  // Whether the place lies among the descriptors given back since.
  const bool same_round = ((place & kWrapBit) != 0) == used_.wrap;
  const int64_t behind =
      int64_t{used_.index} - (place & ~kWrapBit) + (same_round ? 0 : int64_t{layout_.size});
  return behind >= 1 && behind <= since;
}

bool PackedRing::enable_notifications() {
  const Events wish{static_cast<uint16_t>(available_.index | (available_.wrap ? kWrapBit : 0)),
                    features_.event_idx ? kEventsAtPlace : kEventsOn};
  (void)memory_.store(layout_.used, wish);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return available();
}

bool PackedRing::available() const {
  const auto flags = memory_.load<uint16_t>(at(available_.index) + kFlags);
  return flags && is_available(*flags, available_.wrap);
}

void PackedRing::disable_notifications() { (void)memory_.store(layout_.used, Events{0, kEventsOff}); }

void PackedRing::save(SectionWriter& out) const {
  for (const Cursor& cursor : {available_, used_}) {
    out.number(cursor.index);
    out.flag(cursor.wrap);
  }
  out.number(unsignalled_);
}

void PackedRing::restore(SectionReader& in) {
  for (Cursor* cursor : {&available_, &used_}) {
    cursor->index = in.number_to<uint32_t>(layout_.size - 1);
    cursor->wrap = in.flag();
  }
  unsignalled_ = in.number_to<uint32_t>(layout_.size);
}

void PackedRing::save_taken(uint16_t head, SectionWriter& out) const {
  SNUG_ASSERT(head < taken_.size() && taken_[head].count > 0);
  out.number(taken_[head].id);
  out.number(taken_[head].count);
}

void PackedRing::restore_taken(VirtChain& chain, SectionReader& in) {
  Taken taken;
  taken.id = in.number<uint16_t>();
  taken.count = in.number_to<uint16_t>(static_cast<uint16_t>(layout_.size - in_flight_));
  if (taken.count == 0) return in.refuse("a chain of no descriptors, or more than the ring has");
  chain.head = free_.back();
  free_.pop_back();
  taken_[chain.head] = taken;
  in_flight_ += taken.count;
}

}  // namespace

std::string check_packed_ring(const GuestMemory& memory, const VirtQueueLayout& layout) {
  if (layout.size == 0 || layout.size > 32768) return fmt::format("queue size {}", layout.size);
  // 2.8.10.1: alignment of the three parts.
  std::string problem =
      check_ring_part(memory, "descriptor ring", layout.descriptors, kDescriptorSize * layout.size, 16);
  if (problem.empty()) problem = check_ring_part(memory, "driver area", layout.available, sizeof(Events), 4);
  if (problem.empty()) problem = check_ring_part(memory, "device area", layout.used, sizeof(Events), 4);
  return problem;
}

std::unique_ptr<VirtRing> make_packed_ring(const GuestMemory& memory, const VirtQueueLayout& layout,
                                           const VirtQueueFeatures& features) {
  return std::make_unique<PackedRing>(memory, layout, features);
}

}  // namespace snug
