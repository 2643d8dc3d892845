#include "devices/virtio/console/stream.h"

#include <algorithm>

namespace snug {
namespace {

constexpr uint64_t kPart = uint64_t{64} << 10;  // bytes handed over in one call
constexpr uint64_t kTurn = 4 * kPart;           // bytes before others want theirs

}  // namespace

void PortStream::start(VirtioHost& host, uint16_t receive_queue, uint16_t transmit_queue) {
  host_ = &host;
  longest_ = 0;
  receive_queue_ = receive_queue;
  transmit_queue_ = transmit_queue;
}

void PortStream::stop() {
  host_ = nullptr;
  in_.valid = out_.valid = false;
  done_before_ = 0;
}

void PortStream::stop_queue(uint16_t queue) {
  (queue == receive_queue_ ? in_ : out_).valid = false;
  if (queue == transmit_queue_) done_before_ = 0;
}

void PortStream::settle() {
  if (std::exchange(in_.valid, false)) host_->queue(receive_queue_).put_back(std::move(in_.chain));
  if (!std::exchange(out_.valid, false)) return;
  host_->queue(transmit_queue_).put_back(std::move(out_.chain));
  done_before_ = out_.done;
}

void PortStream::save(SectionWriter& out) const {
  out.number(done_before_);
  out.blob(kept_);
}

void PortStream::restore(SectionReader& in) {
  done_before_ = in.number<uint64_t>();
  const auto kept = in.blob(kKept);
  kept_.assign(kept.begin(), kept.end());
}

// --- to the guest -----------------------------------------------------------------------------------

void PortStream::receive() {
  VirtQueue& queue = host_->queue(receive_queue_);
  if (!queue.running() || !connected()) return;
  queue.disable_notifications();
  uint64_t budget = kTurn;
  unsigned chains = queue.size();
  bool any = false;
  while (chains > 0 && budget > 0) {
    if (!in_.valid) {
      const auto popped = queue.pop(in_.chain);
      if (popped == VirtQueue::Pop::kBroken) return host_->needs_reset(queue.why());
      if (popped == VirtQueue::Pop::kEmpty) {
        // The guest rings when it has read something; meanwhile the peer's bytes stay where they are.
        if (queue.enable_notifications()) continue;
        break;
      }
      in_.valid = true;
    }
    parts_.clear();
    const uint64_t length = std::min(in_.chain.writable_bytes(), kPart);
    size_t count = 0;
    if (append_chain_iovecs(host_->memory(), in_.chain.writable, 0, length, parts_) && length > 0) {
      count = peer_->receive(parts_);
      // The buffer waits here for the next bytes.
      if (count == 0) break;
      wrote_chain(host_->memory(), in_.chain.writable, 0, count);
    }
    (void)queue.push(in_.chain.head, static_cast<uint32_t>(count));
    in_.valid = false;
    any = true;
    --chains;
    budget -= std::min<uint64_t>(budget, count);
  }
  if (chains == 0 || budget == 0) host_->again(receive_queue_);
  if (any) host_->used(receive_queue_);
}

// --- from the guest ---------------------------------------------------------------------------------

void PortStream::transmit() {
  VirtQueue& queue = host_->queue(transmit_queue_);
  send_kept();
  if (!queue.running()) return;
  uint64_t budget = kTurn;
  unsigned chains = queue.size();
  do {
    queue.disable_notifications();
    for (;;) {
      if (!out_.valid) {
        const auto popped = queue.pop(out_.chain);
        if (popped == VirtQueue::Pop::kBroken) return host_->needs_reset(queue.why());
        if (popped == VirtQueue::Pop::kEmpty) break;
        out_.valid = true;
        out_.done = std::exchange(done_before_, 0);
        longest_ = std::max(longest_, out_.chain.readable_bytes());
      }
      Sent sent = send_chain(budget);
      if (sent == Sent::kAll) {
        (void)queue.push(out_.chain.head, 0);
        out_.valid = false;
        if (--chains == 0) sent = Sent::kTurnOver;
      }
      if (sent == Sent::kAll) continue;
      host_->used(transmit_queue_);
      if (sent == Sent::kTurnOver) host_->again(transmit_queue_);
      return;
    }
  } while (queue.enable_notifications());
  host_->used(transmit_queue_);
}

PortStream::Sent PortStream::send_chain(uint64_t& budget) {
  const uint64_t total = out_.chain.readable_bytes();
  while (out_.done < total) {
    if (!connected()) return Sent::kAll;
    if (budget == 0) return Sent::kTurnOver;
    const uint64_t length = std::min({total - out_.done, kPart, budget});
    uint64_t count = kept_.empty() ? send_part(length) : 0;
    if (count == 0) {
      if (when_stalled_ == WhenStalled::kHold) return Sent::kStalled;
      const size_t keep = std::min<size_t>(length, kKept - kept_.size());
      const size_t before = kept_.size();
      kept_.resize(before + keep);
      (void)copy_from_chain(host_->memory(), out_.chain.readable, out_.done,
                            std::span(kept_).subspan(before));
      dropped_ += length - keep;
      count = length;
    }
    out_.done += count;
    budget -= count;
  }
  return Sent::kAll;
}

size_t PortStream::send_part(uint64_t length) {
  parts_.clear();
  if (!append_chain_iovecs(host_->memory(), out_.chain.readable, out_.done, length, parts_)) return 0;
  return peer_->send(parts_);
}

void PortStream::send_kept() {
  if (!connected()) kept_.clear();
  size_t done = 0;
  while (done < kept_.size()) {
    const iovec part{kept_.data() + done, kept_.size() - done};
    const size_t count = peer_->send({&part, 1});
    if (count == 0) break;
    done += count;
  }
  kept_.erase(kept_.begin(), kept_.begin() + static_cast<ptrdiff_t>(done));
}

void PortStream::send(std::span<const std::byte> bytes) {
  if (!connected()) return;
  send_kept();
  size_t done = 0;
  if (kept_.empty()) {
    const iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    done = peer_->send({&part, 1});
  }
  const auto rest = bytes.subspan(done).first(std::min(bytes.size() - done, kKept - kept_.size()));
  kept_.insert(kept_.end(), rest.begin(), rest.end());
  dropped_ += bytes.size() - done - rest.size();
}

}  // namespace snug
