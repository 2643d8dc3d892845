// Writes that KVM keeps in a ring instead of leaving the guest for each of them (KVM_CAP_COALESCED_PIO; Linux
// Documentation/virt/kvm/api.rst, KVM_REGISTER_COALESCED_MMIO). For registers whose writes matter only to
// later accesses, such as an index register: the ring must be drained before any other access is handled.
//
// Thread: any.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>

#include "vmm/base/checked.h"
#include "vmm/core/doorbell.h"
#include "vmm/kvm/uapi.h"

namespace snug::kvm {

class CoalescedWrites {
 public:
  // `ring`: a page shared with KVM, all of whose vCPUs write to the same; nullptr where there is none.
  explicit CoalescedWrites(kvm_coalesced_mmio_ring* ring) : ring_(ring) {}

  // Calls write(space, address, bytes) for each write in the guest's order; returns how many. When it
  // returns, every write that was in the ring before the call has been handled, by this thread or another.
  template <class Write>
  size_t drain(Write&& write) {
    if (ring_ == nullptr || empty()) return 0;
    const std::lock_guard lock(mutex_);
    // Writes that other vCPUs add meanwhile are left for next time: this always ends.
    const uint32_t last = std::atomic_ref(ring_->last).load(std::memory_order_acquire) % kEntries;
    size_t count = 0;
    for (uint32_t first = ring_->first % kEntries; first != last; first = (first + 1) % kEntries, ++count) {
      // KVM's own numbers, not the guest's; still, no index of a shared page is trusted.
      const kvm_coalesced_mmio& entry = ring_->coalesced_mmio[first];
      const size_t length = entry.len < sizeof entry.data ? entry.len : sizeof entry.data;
      write(entry.pio != 0 ? AddressSpace::kPort : AddressSpace::kMmio, uint64_t{entry.phys_addr},
            std::as_bytes(std::span(entry.data).first(length)));
      std::atomic_ref(ring_->first).store((first + 1) % kEntries, std::memory_order_release);
    }
    return count;
  }

 private:
  static constexpr uint32_t kEntries =
      (kPageSize - offsetof(kvm_coalesced_mmio_ring, coalesced_mmio)) / sizeof(kvm_coalesced_mmio);

  bool empty() const {
    return std::atomic_ref(ring_->first).load(std::memory_order_acquire) ==
           std::atomic_ref(ring_->last).load(std::memory_order_acquire);
  }

  kvm_coalesced_mmio_ring* ring_;
  std::mutex mutex_;  // one drains at a time, so that the order stays the guest's
};

}  // namespace snug::kvm
