// The split ring, virtio 1.2, 2.7: a table of descriptors linked by index, a ring of heads that the driver
// fills and one that the device fills.
#include <fmt/format.h>

#include <atomic>
#include <bit>

#include "devices/virtio/ring.h"
#include "devices/virtio/ring_layout.h"

namespace snug {
namespace {

// 2.7.5: the descriptor table.
struct Descriptor {
  uint64_t address;
  uint32_t length;
  uint16_t flags;
  uint16_t next;
};
static_assert(sizeof(Descriptor) == kDescriptorSize);

// 2.7.8: an element of the used ring.
struct UsedElement {
  uint32_t id;
  uint32_t length;
};
static_assert(sizeof(UsedElement) == 8);

// 2.7.6 and 2.7.8: both rings begin with flags and an index; behind the entries of each is the other side's
// event index.
constexpr uint64_t kFlags = 0;
constexpr uint64_t kIndex = 2;
constexpr uint64_t kEntries = 4;
constexpr uint16_t kNoInterrupt = 1;  // available ring
constexpr uint16_t kNoNotify = 1;     // used ring

constexpr uint64_t available_size(uint64_t size) { return kEntries + 2 * size + 2; }
constexpr uint64_t used_size(uint64_t size) { return kEntries + 8 * size + 2; }

class SplitRing final : public VirtRing {
 public:
  SplitRing(const GuestMemory& memory, const VirtQueueLayout& layout, const VirtQueueFeatures& features)
      : memory_(memory), layout_(layout), features_(features) {}

  Pop pop(VirtChain& chain) override;
  void push(std::span<const VirtUsed> chains) override;
  bool needs_interrupt() override;
  bool enable_notifications() override;
  void disable_notifications() override;
  bool available() const override;
  void save(SectionWriter& out) const override;
  void restore(SectionReader& in) override;
  void save_taken(uint16_t head, SectionWriter& out) const override { out.number(head); }
  void restore_taken(VirtChain& chain, SectionReader& in) override;

 private:
  bool walk(uint16_t head, VirtChain& chain, std::string& why) const;

  const GuestMemory& memory_;
  const VirtQueueLayout layout_;
  const VirtQueueFeatures features_;
  uint16_t next_available_ = 0;   // index of the next entry of the available ring
  uint16_t used_index_ = 0;       // index of the next entry of the used ring
  uint16_t signalled_index_ = 0;  // used_index_ at the last needs_interrupt()
  bool push_since_signal_ = false;
};

VirtRing::Pop SplitRing::pop(VirtChain& chain) {
  const auto index = memory_.load<uint16_t>(layout_.available + kIndex);
  if (!index) return broken("the driver area is not in RAM");
  if (*index == next_available_) return Pop::kEmpty;
  // The entry was written before the index that tells of it.
  std::atomic_thread_fence(std::memory_order_acquire);
  if (static_cast<uint16_t>(*index - next_available_) > layout_.size)
    return broken(fmt::format("available index {} is more than the queue size {} ahead of {}", *index,
                              layout_.size, next_available_));
  // Each chain takes a descriptor at least, and has it until it is given back.
  if (static_cast<uint16_t>(next_available_ - used_index_) >= layout_.size)
    return broken(fmt::format("more chains are available than the queue size {}", layout_.size));
  const uint64_t slot = next_available_ % layout_.size;
  const auto head = memory_.load<uint16_t>(layout_.available + kEntries + 2 * slot);
  if (!head) return broken("the driver area is not in RAM");
  std::string why;
  if (!walk(*head, chain, why)) return broken(std::move(why));
  ++next_available_;
  return Pop::kChain;
}

bool SplitRing::walk(uint16_t head, VirtChain& chain, std::string& why) const {
  chain.head = head;
  chain.readable.clear();
  chain.writable.clear();
  uint64_t table = layout_.descriptors;
  uint32_t table_size = layout_.size;
  bool indirect = false;
  uint32_t index = head;
  uint32_t left = table_size;  // a chain longer than its table is a loop
  const auto wrong = [&why](std::string what) {
    why = std::move(what);
    return false;
  };
  for (uint32_t count = 0;; ++count) {
    if (count == kMaxChain || left-- == 0) return wrong(fmt::format("chain {} is too long or a loop", head));
    if (index >= table_size) return wrong(fmt::format("descriptor {} of {}", index, table_size));
    const auto descriptor = memory_.load<Descriptor>(table + kDescriptorSize * index);
    if (!descriptor) return wrong(fmt::format("descriptor table at {:#x} is not in RAM", table));
    const auto [address, length, flags, next] = *descriptor;
    if ((flags & kDescriptorIndirect) != 0) {
      // 2.7.5.3: only one table, only last in a chain, whole descriptors.
      if (!features_.indirect) return wrong("an indirect descriptor, which was not negotiated");
      if (indirect) return wrong("an indirect descriptor in an indirect table");
      if ((flags & kDescriptorNext) != 0) return wrong("an indirect descriptor with a next one");
      if (!check_indirect(memory_, address, length, why)) return false;
      indirect = true;
      table = address;
      table_size = left = length / static_cast<uint32_t>(kDescriptorSize);
      index = 0;
      continue;
    }
    if (!add_buffer(memory_, address, length, (flags & kDescriptorWrite) != 0, chain, why)) return false;
    if ((flags & kDescriptorNext) == 0) return true;
    index = next;
  }
}

// Writes that fail meet RAM that check_split_ring() has seen: they cannot.
void SplitRing::push(std::span<const VirtUsed> chains) {
  for (const VirtUsed& chain : chains) {
    const uint64_t slot = used_index_++ % layout_.size;
    const UsedElement element{chain.head, chain.written};
    (void)memory_.store(layout_.used + kEntries + 8 * slot, element);
  }
  // The elements, and all data behind them, before the index that tells of them.
  std::atomic_thread_fence(std::memory_order_release);
  push_since_signal_ = true;
  (void)memory_.store(layout_.used + kIndex, used_index_);
}

bool SplitRing::needs_interrupt() {
  if (!push_since_signal_) return false;
  push_since_signal_ = false;
  const uint16_t before = signalled_index_;
  signalled_index_ = used_index_;
  // The used index must be out before the driver's wish is read: the driver looks the other way round.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!features_.event_idx)
    return (memory_.load<uint16_t>(layout_.available + kFlags).value_or(0) & kNoInterrupt) == 0;
  // 2.7.7.2: whether used_event lies among the entries pushed since.
  const auto event = memory_.load<uint16_t>(layout_.available + kEntries + 2 * uint64_t{layout_.size});
  return static_cast<uint16_t>(used_index_ - event.value_or(0) - 1) <
         static_cast<uint16_t>(used_index_ - before);
}

bool SplitRing::enable_notifications() {
  if (features_.event_idx) {
    (void)memory_.store(layout_.used + kEntries + 8 * uint64_t{layout_.size}, next_available_);
  } else {
    (void)memory_.store(layout_.used + kFlags, uint16_t{0});
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return available();
}

bool SplitRing::available() const {
  return memory_.load<uint16_t>(layout_.available + kIndex).value_or(next_available_) != next_available_;
}

void SplitRing::disable_notifications() {
  // With event indexes the driver is left alone as long as the event index stays behind.
  if (!features_.event_idx) (void)memory_.store(layout_.used + kFlags, kNoNotify);
}

void SplitRing::save(SectionWriter& out) const {
  out.number(next_available_);
  out.number(used_index_);
  out.number(signalled_index_);
  out.flag(push_since_signal_);
}

void SplitRing::restore(SectionReader& in) {
  next_available_ = in.number<uint16_t>();
  used_index_ = in.number<uint16_t>();
  signalled_index_ = in.number<uint16_t>();
  push_since_signal_ = in.flag();
}

void SplitRing::restore_taken(VirtChain& chain, SectionReader& in) {
  chain.head = in.number_to<uint16_t>(static_cast<uint16_t>(layout_.size - 1));
}

}  // namespace

std::string check_split_ring(const GuestMemory& memory, const VirtQueueLayout& layout) {
  if (layout.size == 0 || layout.size > 32768 || !std::has_single_bit(layout.size))
    return fmt::format("queue size {}", layout.size);
  // 2.7: alignment of the three parts.
  std::string problem =
      check_ring_part(memory, "descriptor table", layout.descriptors, kDescriptorSize * layout.size, 16);
  if (problem.empty())
    problem = check_ring_part(memory, "driver area", layout.available, available_size(layout.size), 2);
  if (problem.empty())
    problem = check_ring_part(memory, "device area", layout.used, used_size(layout.size), 4);
  return problem;
}

std::unique_ptr<VirtRing> make_split_ring(const GuestMemory& memory, const VirtQueueLayout& layout,
                                          const VirtQueueFeatures& features) {
  return std::make_unique<SplitRing>(memory, layout, features);
}

}  // namespace snug
