#include "devices/virtio/queue.h"

namespace snug {

std::string VirtQueue::start(const VirtQueueLayout& layout, const VirtQueueFeatures& features) {
  stop();
  std::string problem =
      features.packed ? check_packed_ring(memory_, layout) : check_split_ring(memory_, layout);
  if (!problem.empty()) return problem;
  ring_ = features.packed ? make_packed_ring(memory_, layout, features)
                          : make_split_ring(memory_, layout, features);
  size_ = layout.size;
  return {};
}

void VirtQueue::stop() {
  ring_.reset();
  size_ = 0;
  why_.clear();
}

VirtQueue::Pop VirtQueue::pop(VirtChain& chain) {
  if (!running()) return Pop::kEmpty;
  const Pop popped = ring_->pop(chain);
  if (popped == Pop::kBroken) {
    why_ = ring_->why();
    ring_.reset();
  }
  return popped;
}

bool VirtQueue::push(uint16_t head, uint32_t written) {
  const VirtUsed chain{head, written};
  return push(std::span(&chain, 1));
}

bool VirtQueue::push(std::span<const VirtUsed> chains) {
  if (!running()) return false;
  if (!chains.empty()) ring_->push(chains);
  return true;
}

void VirtQueue::disable_notifications() {
  if (running()) ring_->disable_notifications();
}

}  // namespace snug
