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
  put_back_.clear();
  why_.clear();
}

VirtQueue::Pop VirtQueue::pop(VirtChain& chain) {
  if (!running()) return Pop::kEmpty;
  if (!put_back_.empty()) {
    chain = std::move(put_back_.front());
    put_back_.pop_front();
    return Pop::kChain;
  }
  const Pop popped = ring_->pop(chain);
  if (popped == Pop::kBroken) {
    why_ = ring_->why();
    ring_.reset();
    put_back_.clear();
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

// --- snapshots ----------------------------------------------------------------------------------------

void VirtQueue::save(SectionWriter& out) const {
  out.flag(running());
  if (!running()) return;
  ring_->save(out);
  out.number(static_cast<uint16_t>(put_back_.size()));
  for (const VirtChain& chain : put_back_) {
    ring_->save_taken(chain.head, out);
    for (const auto* buffers : {&chain.readable, &chain.writable}) {
      out.number(static_cast<uint32_t>(buffers->size()));
      for (const VirtBuffer& buffer : *buffers) {
        out.number(buffer.gpa);
        out.number(buffer.length);
      }
    }
  }
}

void VirtQueue::restore(SectionReader& in) {
  // Broken by the guest before.
  if (!in.flag()) return stop();
  if (!running()) return in.refuse("a queue that works, where there is none");
  ring_->restore(in);
  const auto count = in.number_to<uint16_t>(size_);
  for (uint16_t i = 0; i < count && in.good(); ++i) {
    VirtChain chain;
    ring_->restore_taken(chain, in);
    for (const bool writable : {false, true}) {
      const auto buffers = in.number_to<uint32_t>(VirtRing::kMaxChain);
      for (uint32_t buffer = 0; buffer < buffers && in.good(); ++buffer) {
        const auto gpa = in.number<uint64_t>();
        const auto length = in.number<uint32_t>();
        std::string why;
        if (!VirtRing::add_buffer(memory_, gpa, length, writable, chain, why)) in.refuse(std::move(why));
      }
    }
    if (in.good()) put_back_.push_back(std::move(chain));
  }
}

}  // namespace snug
