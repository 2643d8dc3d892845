// A virtqueue as the device sees it: takes descriptor chains that the driver has made available, gives them
// back as used, and knows when each side wants to hear of it. Which of the two layouts its ring has
// (virtio 1.2, 2.7 and 2.8) was negotiated; the device does not see it.
//
// Everything it reads lies in guest memory and may change at any moment: each field is read once, checked,
// then used. A ring that breaks the rules makes the queue broken; it answers nothing until it is set up anew.
//
// Owner: a transport. Thread: the device's lock held.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>

#include "devices/virtio/chain.h"
#include "devices/virtio/ring.h"

namespace snug {

class VirtQueue {
 public:
  using Pop = VirtRing::Pop;

  explicit VirtQueue(const GuestMemory& memory) : memory_(memory) {}

  // Starts at the beginning of a ring. "" or, in words, what is wrong with the layout (alignment, size, RAM).
  std::string start(const VirtQueueLayout& layout, const VirtQueueFeatures& features);
  // Back to nothing: pop() finds nothing any more.
  void stop();

  // The next available chain. kBroken once: what was wrong is in `why()`.
  Pop pop(VirtChain& chain);
  // A chain that was popped is popped again, before all others: a device that holds several puts the last one
  // back first.
  void put_back(VirtChain chain) { put_back_.push_front(std::move(chain)); }
  // Gives a chain back with the number of bytes written into it. False when the ring is not there any more.
  bool push(uint16_t head, uint32_t written);
  // Several at once: the driver sees all of them or none yet.
  bool push(std::span<const VirtUsed> chains);
  // Whether what has been pushed since the last call needs an interrupt.
  bool needs_interrupt() { return running() && ring_->needs_interrupt(); }
  // Asks the driver for a notification with its next chain. True when chains came meanwhile: pop again.
  bool enable_notifications() { return running() && (ring_->enable_notifications() || !put_back_.empty()); }
  void disable_notifications();
  // Whether there is something to pop.
  bool available() const { return running() && (!put_back_.empty() || ring_->available()); }

  bool running() const { return ring_ != nullptr; }
  uint16_t size() const { return size_; }

  // For snapshots, when all that was popped is given back or put back. Restored into one that has been
  // started, of the same layout and features.
  void save(SectionWriter& out) const;
  void restore(SectionReader& in);

  const std::string& why() const { return why_; }

 private:
  const GuestMemory& memory_;
  std::unique_ptr<VirtRing> ring_;
  uint16_t size_ = 0;
  std::deque<VirtChain> put_back_;
  std::string why_;
};

}  // namespace snug
