// The two layouts of a virtqueue in guest memory: split (virtio 1.2, 2.7) and packed (2.8). Devices see
// neither, but a VirtQueue.
//
// Owner: a VirtQueue, which starts and drops it. Thread: the device's lock held.
// The guest controls every byte of a ring, at any moment; see queue.h.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "devices/virtio/chain.h"
#include "vmm/core/guest_memory.h"
#include "vmm/core/state.h"

namespace snug {

// Where the driver has put the three parts of a ring, guest-physical.
struct VirtQueueLayout {
  uint16_t size = 0;  // entries, 1 to 32768; a power of two in a split ring
  uint64_t descriptors = 0;
  uint64_t available = 0;  // the driver area
  uint64_t used = 0;       // the device area
};

struct VirtQueueFeatures {
  bool indirect = false;   // VIRTIO_F_INDIRECT_DESC
  bool event_idx = false;  // VIRTIO_F_EVENT_IDX
  bool packed = false;     // VIRTIO_F_RING_PACKED
};

class VirtRing {
 public:
  // The longest chain that is taken, indirect tables included.
  static constexpr uint32_t kMaxChain = 1024;

  enum class Pop { kEmpty, kChain, kBroken };

  virtual ~VirtRing() = default;
  // After kBroken nothing else is called.
  virtual Pop pop(VirtChain& chain) = 0;
  // At least one; each was popped and not given back yet.
  virtual void push(std::span<const VirtUsed> chains) = 0;
  virtual bool needs_interrupt() = 0;
  virtual bool enable_notifications() = 0;
  virtual bool available() const = 0;
  virtual void disable_notifications() = 0;

  // For snapshots: where it is. Restored into a ring that was just made, of the same layout and features.
  virtual void save(SectionWriter& out) const = 0;
  virtual void restore(SectionReader& in) = 0;
  // The same of a chain that was popped and not given back. Restored, it is popped already, and `chain` has
  // its head.
  virtual void save_taken(uint16_t head, SectionWriter& out) const = 0;
  virtual void restore_taken(VirtChain& chain, SectionReader& in) = 0;

  // After kBroken: what was wrong.
  const std::string& why() const { return why_; }

  // Adds a buffer to a chain. False: it cannot be part of one, see `why`.
  static bool add_buffer(const GuestMemory& memory, uint64_t gpa, uint32_t length, bool writable,
                         VirtChain& chain, std::string& why);

 protected:
  Pop broken(std::string why);
  // Whether a table of indirect descriptors can be there. False: see `why`.
  static bool check_indirect(const GuestMemory& memory, uint64_t gpa, uint32_t length, std::string& why);

  std::string why_;
};

// "" or what is wrong with a layout: alignment, size, RAM.
std::string check_split_ring(const GuestMemory& memory, const VirtQueueLayout& layout);
std::string check_packed_ring(const GuestMemory& memory, const VirtQueueLayout& layout);

// From a layout that was checked, at its beginning. `memory` must outlive the ring.
std::unique_ptr<VirtRing> make_split_ring(const GuestMemory& memory, const VirtQueueLayout& layout,
                                          const VirtQueueFeatures& features);
std::unique_ptr<VirtRing> make_packed_ring(const GuestMemory& memory, const VirtQueueLayout& layout,
                                           const VirtQueueFeatures& features);

}  // namespace snug
