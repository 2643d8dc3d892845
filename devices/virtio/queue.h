// A split virtqueue as the device sees it (virtio 1.2, 2.7): takes descriptor chains that the driver has made
// available, gives them back as used, and knows when each side wants to hear of it.
//
// Everything it reads lies in guest memory and may change at any moment: each field is read once, checked,
// then used. A ring that breaks the rules makes the queue broken; it answers nothing until it is set up anew.
//
// Owner: a transport. Thread: the device's lock held.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "vmm/core/guest_memory.h"

namespace snug {

// A part of a request in guest memory. All of it is RAM, length is not 0.
struct VirtBuffer {
  uint64_t gpa;
  uint32_t length;  // bytes
};

// One request. Reused from pop to pop, so that the steady state allocates nothing.
struct VirtChain {
  uint16_t head = 0;                 // names the chain when it is given back
  std::vector<VirtBuffer> readable;  // by the device, in order
  std::vector<VirtBuffer> writable;  // by the device, in order

  uint64_t readable_bytes() const;
  uint64_t writable_bytes() const;
};

// A chain given back.
struct VirtUsed {
  uint16_t head;
  uint32_t written;  // bytes
};

// Appends the host memory of [offset, offset + length) of the buffers, for one system call. False when they
// end earlier or are not RAM any more.
bool append_chain_iovecs(const GuestMemory& memory, const std::vector<VirtBuffer>& buffers, uint64_t offset,
                         uint64_t length, std::vector<iovec>& iovecs);

// Copies between a chain's buffers and host memory, from `offset` bytes into them. Returns how many bytes
// there were, which is less than asked for when the buffers end.
size_t copy_from_chain(const GuestMemory& memory, const std::vector<VirtBuffer>& buffers, uint64_t offset,
                       std::span<std::byte> out);
size_t copy_to_chain(const GuestMemory& memory, const std::vector<VirtBuffer>& buffers, uint64_t offset,
                     std::span<const std::byte> data);

// Where the driver has put the three parts of a ring, guest-physical.
struct VirtQueueLayout {
  uint16_t size = 0;  // entries: a power of two, 1 to 32768
  uint64_t descriptors = 0;
  uint64_t available = 0;  // the driver area
  uint64_t used = 0;       // the device area
};

struct VirtQueueFeatures {
  bool indirect = false;   // VIRTIO_F_INDIRECT_DESC
  bool event_idx = false;  // VIRTIO_F_EVENT_IDX
};

class VirtQueue {
 public:
  // The longest chain that is taken, indirect tables included.
  static constexpr uint32_t kMaxChain = 1024;

  explicit VirtQueue(const GuestMemory& memory) : memory_(memory) {}

  // Starts at the beginning of a ring. "" or, in words, what is wrong with the layout (alignment, size, RAM).
  std::string start(const VirtQueueLayout& layout, const VirtQueueFeatures& features);
  // Back to nothing: pop() finds nothing any more.
  void stop();

  enum class Pop { kEmpty, kChain, kBroken };
  // The next available chain. kBroken once: what was wrong is in `why()`.
  Pop pop(VirtChain& chain);
  // Gives a chain back with the number of bytes written into it. False when the ring is not there any more.
  bool push(uint16_t head, uint32_t written);
  // Several at once: the driver sees all of them or none yet.
  bool push(std::span<const VirtUsed> chains);
  // Whether what has been pushed since the last call needs an interrupt.
  bool needs_interrupt();
  // Asks the driver for a notification with its next chain. True when chains came meanwhile: pop again.
  bool enable_notifications();
  void disable_notifications();

  bool running() const { return running_; }
  uint16_t size() const { return layout_.size; }
  const std::string& why() const { return why_; }
  // Chains taken and not yet given back.
  uint16_t in_flight() const { return static_cast<uint16_t>(next_available_ - used_index_); }

 private:
  Pop broken(std::string why);
  std::string walk(uint16_t head, VirtChain& chain) const;

  const GuestMemory& memory_;
  VirtQueueLayout layout_;
  VirtQueueFeatures features_;
  bool running_ = false;
  uint16_t next_available_ = 0;   // index of the next entry of the available ring
  uint16_t used_index_ = 0;       // index of the next entry of the used ring
  uint16_t signalled_index_ = 0;  // used_index_ at the last needs_interrupt()
  bool push_since_signal_ = false;
  std::string why_;
};

}  // namespace snug
