#include "devices/virtio/rng/rng.h"

#include <algorithm>

namespace snug {
namespace {

// What one request gets at most: a guest that asks for gigabytes must not hold the loop. Drivers ask again
// (5.4.6.1: the device may give fewer bytes).
constexpr size_t kMaxRequest = 4096;

}  // namespace

void VirtioRng::start(VirtioHost& host, uint64_t) { host_ = &host; }

bool VirtioRng::stop() {
  host_ = nullptr;
  return true;
}

void VirtioRng::queue_ready(uint16_t index) {
  VirtQueue& queue = host_->queue(index);
  std::array<std::byte, kMaxRequest> bytes;
  do {
    queue.disable_notifications();
    for (unsigned budget = queue.size(); budget > 0; --budget) {
      const auto popped = queue.pop(chain_);
      if (popped == VirtQueue::Pop::kBroken) return host_->needs_reset(queue.why());
      if (popped == VirtQueue::Pop::kEmpty) break;
      if (chain_.writable.empty()) return host_->needs_reset("an entropy request without a writable buffer");
      const size_t wanted = static_cast<size_t>(std::min<uint64_t>(chain_.writable_bytes(), bytes.size()));
      const auto part = std::span(bytes).first(wanted);
      source_(part);
      const size_t written = copy_to_chain(host_->memory(), chain_.writable, 0, part);
      (void)queue.push(chain_.head, static_cast<uint32_t>(written));
      if (budget == 1) {
        // Others want their turn.
        host_->used(index);
        return host_->again(index);
      }
    }
  } while (queue.enable_notifications());
  host_->used(index);
}

}  // namespace snug
