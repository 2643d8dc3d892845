#include "devices/virtio/queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <bit>

#include "vmm/base/checked.h"

namespace snug {
namespace {

// 2.7.5: the descriptor table.
struct Descriptor {
  uint64_t address;
  uint32_t length;
  uint16_t flags;
  uint16_t next;
};
static_assert(sizeof(Descriptor) == 16);
constexpr uint16_t kNext = 1;
constexpr uint16_t kWrite = 2;
constexpr uint16_t kIndirect = 4;

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

constexpr uint64_t descriptors_size(uint64_t size) { return 16 * size; }
constexpr uint64_t available_size(uint64_t size) { return kEntries + 2 * size + 2; }
constexpr uint64_t used_size(uint64_t size) { return kEntries + 8 * size + 2; }

uint64_t total(const std::vector<VirtBuffer>& buffers) {
  uint64_t sum = 0;
  for (const VirtBuffer& buffer : buffers) sum += buffer.length;
  return sum;
}

// Calls copy(gpa, part of data) for what lies behind `offset`.
template <class Span, class Copy>
size_t each_part(const std::vector<VirtBuffer>& buffers, uint64_t offset, Span data, Copy copy) {
  size_t done = 0;
  for (const VirtBuffer& buffer : buffers) {
    if (done == data.size()) break;
    if (offset >= buffer.length) {
      offset -= buffer.length;
      continue;
    }
    const size_t length = std::min<size_t>(data.size() - done, buffer.length - offset);
    if (!copy(buffer.gpa + offset, data.subspan(done, length))) break;
    done += length;
    offset = 0;
  }
  return done;
}

}  // namespace

uint64_t VirtChain::readable_bytes() const { return total(readable); }
uint64_t VirtChain::writable_bytes() const { return total(writable); }

bool append_chain_iovecs(const GuestMemory& memory, const std::vector<VirtBuffer>& buffers, uint64_t offset,
                         uint64_t length, std::vector<iovec>& iovecs) {
  for (const VirtBuffer& buffer : buffers) {
    if (length == 0) break;
    if (offset >= buffer.length) {
      offset -= buffer.length;
      continue;
    }
    const uint64_t part = std::min<uint64_t>(length, buffer.length - offset);
    if (!memory.append_iovec(buffer.gpa + offset, part, iovecs)) return false;
    length -= part;
    offset = 0;
  }
  return length == 0;
}

size_t copy_from_chain(const GuestMemory& memory, const std::vector<VirtBuffer>& buffers, uint64_t offset,
                       std::span<std::byte> out) {
  return each_part(buffers, offset, out,
                   [&](uint64_t gpa, std::span<std::byte> part) { return memory.read(gpa, part); });
}

size_t copy_to_chain(const GuestMemory& memory, const std::vector<VirtBuffer>& buffers, uint64_t offset,
                     std::span<const std::byte> data) {
  return each_part(buffers, offset, data,
                   [&](uint64_t gpa, std::span<const std::byte> part) { return memory.write(gpa, part); });
}

std::string VirtQueue::start(const VirtQueueLayout& layout, const VirtQueueFeatures& features) {
  stop();
  if (layout.size == 0 || layout.size > 32768 || !std::has_single_bit(layout.size))
    return fmt::format("queue size {}", layout.size);
  // 2.7: alignment of the three parts.
  const auto check = [&](const char* part, uint64_t gpa, uint64_t size, uint64_t alignment) {
    if (gpa % alignment != 0) return fmt::format("{} at {:#x} is not aligned to {}", part, gpa, alignment);
    if (!memory_.contains(gpa, size)) return fmt::format("{} at {:#x} is not in RAM", part, gpa);
    return std::string();
  };
  std::string problem = check("descriptor table", layout.descriptors, descriptors_size(layout.size), 16);
  if (problem.empty()) problem = check("driver area", layout.available, available_size(layout.size), 2);
  if (problem.empty()) problem = check("device area", layout.used, used_size(layout.size), 4);
  if (!problem.empty()) return problem;
  layout_ = layout;
  features_ = features;
  running_ = true;
  return {};
}

void VirtQueue::stop() {
  running_ = false;
  layout_ = {};
  next_available_ = used_index_ = signalled_index_ = 0;
  push_since_signal_ = false;
  why_.clear();
}

VirtQueue::Pop VirtQueue::broken(std::string why) {
  running_ = false;
  why_ = std::move(why);
  return Pop::kBroken;
}

VirtQueue::Pop VirtQueue::pop(VirtChain& chain) {
  if (!running_) return Pop::kEmpty;
  const auto index = memory_.load<uint16_t>(layout_.available + kIndex);
  if (!index) return broken("the driver area is not in RAM");
  if (*index == next_available_) return Pop::kEmpty;
  // The entry was written before the index that tells of it.
  std::atomic_thread_fence(std::memory_order_acquire);
  if (static_cast<uint16_t>(*index - next_available_) > layout_.size)
    return broken(fmt::format("available index {} is more than the queue size {} ahead of {}", *index,
                              layout_.size, next_available_));
  const uint64_t slot = next_available_ % layout_.size;
  const auto head = memory_.load<uint16_t>(layout_.available + kEntries + 2 * slot);
  if (!head) return broken("the driver area is not in RAM");
  std::string problem = walk(*head, chain);
  if (!problem.empty()) return broken(std::move(problem));
  ++next_available_;
  return Pop::kChain;
}

std::string VirtQueue::walk(uint16_t head, VirtChain& chain) const {
  chain.head = head;
  chain.readable.clear();
  chain.writable.clear();
  uint64_t table = layout_.descriptors;
  uint32_t table_size = layout_.size;
  bool indirect = false;
  uint32_t index = head;
  uint32_t left = table_size;  // a chain longer than its table is a loop
  for (uint32_t count = 0;; ++count) {
    if (count == kMaxChain || left-- == 0) return fmt::format("chain {} is too long or a loop", head);
    if (index >= table_size) return fmt::format("descriptor {} of {}", index, table_size);
    const auto descriptor = memory_.load<Descriptor>(table + descriptors_size(index));
    if (!descriptor) return fmt::format("descriptor table at {:#x} is not in RAM", table);
    const auto [address, length, flags, next] = *descriptor;
    if ((flags & kIndirect) != 0) {
      // 2.7.5.3: only one table, only last in a chain, whole descriptors.
      if (!features_.indirect) return "an indirect descriptor, which was not negotiated";
      if (indirect) return "an indirect descriptor in an indirect table";
      if ((flags & kNext) != 0) return "an indirect descriptor with a next one";
      if (length == 0 || length % sizeof(Descriptor) != 0)
        return fmt::format("an indirect table of {} bytes", length);
      if (!memory_.contains(address, length))
        return fmt::format("an indirect table of {} bytes at {:#x}, which is not in RAM", length, address);
      indirect = true;
      table = address;
      table_size = left = length / static_cast<uint32_t>(sizeof(Descriptor));
      index = 0;
      continue;
    }
    if (!memory_.contains(address, length))
      return fmt::format("a buffer of {} bytes at {:#x}, which is not in RAM", length, address);
    const bool writable = (flags & kWrite) != 0;
    // 2.7.4.2: what the device reads comes first.
    if (!writable && !chain.writable.empty()) return "a readable buffer behind a writable one";
    if (length != 0) (writable ? chain.writable : chain.readable).push_back({address, length});
    if ((flags & kNext) == 0) return {};
    index = next;
  }
}

bool VirtQueue::push(uint16_t head, uint32_t written) {
  const VirtUsed chain{head, written};
  return push(std::span(&chain, 1));
}

bool VirtQueue::push(std::span<const VirtUsed> chains) {
  if (!running_) return false;
  for (const VirtUsed& chain : chains) {
    const uint64_t slot = used_index_++ % layout_.size;
    const UsedElement element{chain.head, chain.written};
    if (!memory_.store(layout_.used + kEntries + 8 * slot, element)) return false;
  }
  // The elements, and all data behind them, before the index that tells of them.
  std::atomic_thread_fence(std::memory_order_release);
  push_since_signal_ = true;
  return memory_.store(layout_.used + kIndex, used_index_);
}

bool VirtQueue::needs_interrupt() {
  if (!running_ || !push_since_signal_) return false;
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

bool VirtQueue::enable_notifications() {
  if (!running_) return false;
  // Writes that fail meet RAM that start() has seen: they cannot.
  if (features_.event_idx) {
    (void)memory_.store(layout_.used + kEntries + 8 * uint64_t{layout_.size}, next_available_);
  } else {
    (void)memory_.store(layout_.used + kFlags, uint16_t{0});
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return memory_.load<uint16_t>(layout_.available + kIndex).value_or(next_available_) != next_available_;
}

void VirtQueue::disable_notifications() {
  // With event indexes the driver is left alone as long as the event index stays behind.
  if (running_ && !features_.event_idx) (void)memory_.store(layout_.used + kFlags, kNoNotify);
}

}  // namespace snug
