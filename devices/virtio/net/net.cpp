#include "devices/virtio/net/net.h"

#include <algorithm>
#include <cstring>

#include "vmm/base/assertion.h"
#include "vmm/base/endian.h"

namespace snug {
namespace {

// 5.1.3: feature bits.
constexpr uint64_t kGuestChecksum = uint64_t{1} << 1;
constexpr uint64_t kMtu = uint64_t{1} << 3;
constexpr uint64_t kMac = uint64_t{1} << 5;
constexpr uint64_t kMergeableBuffers = uint64_t{1} << 15;
constexpr uint64_t kStatus = uint64_t{1} << 16;
constexpr uint64_t kControlQueue = uint64_t{1} << 17;
constexpr uint64_t kMultiQueue = uint64_t{1} << 22;

constexpr uint16_t kLinkUp = 1;  // 5.1.4, status

// 5.1.6.5: the control queue.
constexpr uint8_t kControlMultiQueue = 4;
constexpr uint8_t kSetPairs = 0;
constexpr uint8_t kControlOk = 0;
constexpr uint8_t kControlError = 1;

constexpr size_t kHeader = sizeof(VirtioNetHeader);
constexpr size_t kBatch = 32;     // frames handed to the backend at once
constexpr size_t kPartsMax = 64;  // a frame in more parts is copied together first

}  // namespace

VirtioNet::VirtioNet(NetConfig config, std::unique_ptr<NetBackend> backend)
    : config_(std::move(config)),
      queue_sizes_(2 * config_.pairs + (config_.pairs > 1 ? 1 : 0), kQueueSize),
      backend_(std::move(backend)),
      pairs_(config_.pairs) {
  SNUG_ASSERT(config_.pairs >= 1 && config_.pairs <= kMaxPairs);
}

uint64_t VirtioNet::features() const {
  uint64_t bits = kMac | kStatus | kMergeableBuffers | kGuestChecksum | backend_->offloads();
  if (config_.mtu != 0) bits |= kMtu;
  if (config_.pairs > 1) bits |= kControlQueue | kMultiQueue;
  return bits;
}

void VirtioNet::read_config(uint64_t offset, std::span<std::byte> data) const {
  // 5.1.4
  std::array<std::byte, 12> image{};
  const std::span<std::byte> all(image);
  std::memcpy(image.data(), config_.mac.data(), config_.mac.size());
  store_le(all.subspan(6, 2), link_up_ ? kLinkUp : 0);
  store_le(all.subspan(8, 2), config_.pairs);
  store_le(all.subspan(10, 2), config_.mtu);
  if (offset >= image.size()) return;
  const size_t length = std::min<size_t>(data.size(), image.size() - offset);
  std::copy_n(image.begin() + static_cast<ptrdiff_t>(offset), length, data.begin());
}

void VirtioNet::start(VirtioHost& host, uint64_t features) {
  host_ = &host;
  driver_features_ = features;
  active_pairs_ = 1;
  backend_->start(features);
}

bool VirtioNet::stop() {
  host_ = nullptr;
  for (Pair& pair : pairs_) pair.outgoing.count = pair.incoming.count = 0;
  return true;
}

void VirtioNet::set_link(bool up) {
  if (link_up_ == up) return;
  link_up_ = up;
  if (host_ != nullptr) host_->config_changed();
}

void VirtioNet::connect(std::unique_ptr<NetBackend> backend) {
  backend_ = std::move(backend);
  if (host_ == nullptr) return;
  backend_->start(driver_features_);
  for (uint16_t pair = 0; pair < pair_count(); ++pair)
    if (pairs_[pair].outgoing.count > 0) transmit(pair);
}

// 5.1.2: the control queue lies behind the pairs that were negotiated.
uint16_t VirtioNet::pair_count() const { return (driver_features_ & kMultiQueue) != 0 ? config_.pairs : 1; }

void VirtioNet::queue_ready(uint16_t index) {
  if (index >= 2 * pair_count()) {
    if (index == 2 * pair_count() && (driver_features_ & kControlQueue) != 0) control();
    return;
  }
  const auto pair = static_cast<uint16_t>(index / 2);
  if (index % 2 == 0) {
    receive(pair);
  } else {
    transmit(pair);
  }
}

void VirtioNet::backend_ready(uint16_t pair) {
  if (host_ == nullptr || pair >= pair_count()) return;
  receive(pair);
  // receive() may have met a broken ring; the device stands still then.
  if (pairs_[pair].outgoing.count > 0) transmit(pair);
}

// --- from the guest ---------------------------------------------------------------------------------

void VirtioNet::transmit(uint16_t pair) {
  const auto index = static_cast<uint16_t>(2 * pair + 1);
  VirtQueue& queue = host_->queue(index);
  Reused<Outgoing>& outgoing = pairs_[pair].outgoing;
  size_t budget = queue.size();
  bool stuck = false;
  do {
    queue.disable_notifications();
    for (;;) {
      auto popped = VirtQueue::Pop::kEmpty;
      while (outgoing.count < kBatch && (popped = queue.pop(chain_)) == VirtQueue::Pop::kChain) {
        if (!parse(queue, outgoing.add())) {
          --outgoing.count;
          (void)queue.push(chain_.head, 0);
        }
        if (budget > 0) --budget;
      }
      if (popped == VirtQueue::Pop::kBroken) return host_->needs_reset(queue.why());
      if (outgoing.count == 0) break;
      stuck = send(pair, queue) == 0;
      if (stuck) break;
      if (budget == 0) {
        // Others want their turn.
        host_->used(index);
        return host_->again(index);
      }
    }
  } while (!stuck && queue.enable_notifications());
  host_->used(index);
}

// Takes chain_ apart. False: no frame that could be sent.
bool VirtioNet::parse(VirtQueue&, Outgoing& out) {
  const GuestMemory& memory = host_->memory();
  const uint64_t bytes = chain_.readable_bytes();
  if (bytes < kHeader + kFrameMin || bytes > kHeader + kFrameMax) return false;
  out.head = chain_.head;
  out.parts.clear();
  out.frame.length = static_cast<uint32_t>(bytes - kHeader);
  if (copy_from_chain(memory, chain_.readable, 0, std::as_writable_bytes(std::span(&out.frame.header, 1))) !=
      kHeader)
    return false;
  if (chain_.readable.size() > kPartsMax) {
    out.copy.resize(out.frame.length);
    if (copy_from_chain(memory, chain_.readable, kHeader, out.copy) != out.copy.size()) return false;
    out.parts.push_back({out.copy.data(), out.copy.size()});
    return true;
  }
  return append_chain_iovecs(memory, chain_.readable, kHeader, out.frame.length, out.parts);
}

// Sends what is waiting; returns how many frames are gone.
size_t VirtioNet::send(uint16_t pair, VirtQueue& queue) {
  Reused<Outgoing>& outgoing = pairs_[pair].outgoing;
  frames_.clear();
  for (Outgoing& out : std::span(outgoing.items).first(outgoing.count)) {
    out.frame.parts = out.parts;
    frames_.push_back(out.frame);
  }
  const size_t sent = link_up_ ? backend_->send(pair, frames_) : frames_.size();
  used_.clear();
  for (size_t i = 0; i < sent; ++i) used_.push_back({outgoing.items[i].head, 0});
  (void)queue.push(used_);
  const auto first = outgoing.items.begin();
  std::rotate(first, first + static_cast<ptrdiff_t>(sent), first + static_cast<ptrdiff_t>(outgoing.count));
  outgoing.count -= sent;
  return sent;
}

// --- to the guest -----------------------------------------------------------------------------------

// The guest rings this queue's doorbell only when it had run out of buffers.
void VirtioNet::receive(uint16_t pair) {
  const auto index = static_cast<uint16_t>(2 * pair);
  VirtQueue& queue = host_->queue(index);
  if (!queue.running()) return;
  queue.disable_notifications();
  bool any = false;
  for (size_t budget = queue.size(); budget > 0;) {
    const auto frame = backend_->next(pair);
    if (!frame) break;
    const Delivered delivered = link_up_ ? deliver(pair, queue, *frame) : Delivered::kYes;
    if (delivered == Delivered::kBroken) return host_->needs_reset(queue.why());
    if (delivered == Delivered::kNoBuffers) {
      if (queue.enable_notifications()) continue;
      break;
    }
    backend_->take(pair);
    any = true;
    if (--budget == 0) host_->again(index);
  }
  if (any) host_->used(index);
}

// A frame that does not fit is dropped, as by a NIC.
VirtioNet::Delivered VirtioNet::deliver(uint16_t pair, VirtQueue& queue, const InFrame& frame) {
  Reused<Incoming>& incoming = pairs_[pair].incoming;
  const bool mergeable = (driver_features_ & kMergeableBuffers) != 0;
  const size_t wanted = kHeader + frame.data.size();
  size_t room = 0;
  size_t chains = 0;
  while (room < wanted) {
    if (chains == incoming.count) {
      if (chains == queue.size()) return Delivered::kYes;
      Incoming& next = incoming.add();
      const auto popped = queue.pop(next.chain);
      if (popped != VirtQueue::Pop::kChain) --incoming.count;
      if (popped == VirtQueue::Pop::kBroken) return Delivered::kBroken;
      if (popped == VirtQueue::Pop::kEmpty) return Delivered::kNoBuffers;
      next.room = next.chain.writable_bytes();
    }
    const uint64_t more = incoming.items[chains++].room;
    // The header lies in one buffer.
    if (chains == 1 && more < kHeader) break;
    room += more;
    if (!mergeable) break;
  }
  if (room < wanted) {
    // This buffer will never do: back to the guest, empty.
    (void)queue.push(incoming.items[0].chain.head, 0);
    std::rotate(incoming.items.begin(), incoming.items.begin() + 1,
                incoming.items.begin() + static_cast<ptrdiff_t>(incoming.count));
    --incoming.count;
    return Delivered::kYes;
  }
  VirtioNetHeader header = frame.header;
  if ((driver_features_ & kGuestChecksum) == 0) header.flags = 0;
  header.buffers = static_cast<uint16_t>(chains);
  const GuestMemory& memory = host_->memory();
  used_.clear();
  size_t done = 0;
  for (size_t i = 0; i < chains; ++i) {
    const Incoming& buffer = incoming.items[i];
    size_t at = 0;
    if (i == 0) at = copy_to_chain(memory, buffer.chain.writable, 0, std::as_bytes(std::span(&header, 1)));
    const size_t part = std::min<uint64_t>(frame.data.size() - done, buffer.room - at);
    copy_to_chain(memory, buffer.chain.writable, at, frame.data.subspan(done, part));
    done += part;
    used_.push_back({buffer.chain.head, static_cast<uint32_t>(at + part)});
  }
  (void)queue.push(used_);
  const auto first = incoming.items.begin();
  std::rotate(first, first + static_cast<ptrdiff_t>(chains), first + static_cast<ptrdiff_t>(incoming.count));
  incoming.count -= chains;
  return Delivered::kYes;
}

// --- the control queue ------------------------------------------------------------------------------

void VirtioNet::control() {
  const auto index = static_cast<uint16_t>(2 * pair_count());
  VirtQueue& queue = host_->queue(index);
  do {
    queue.disable_notifications();
    for (unsigned budget = queue.size(); budget > 0; --budget) {
      const auto popped = queue.pop(chain_);
      if (popped == VirtQueue::Pop::kBroken) return host_->needs_reset(queue.why());
      if (popped == VirtQueue::Pop::kEmpty) break;
      const std::byte answer{control_command()};
      const size_t written = copy_to_chain(host_->memory(), chain_.writable, 0, {&answer, 1});
      if (written == 0) return host_->needs_reset("a control command without room for its answer");
      (void)queue.push(chain_.head, 1);
      if (budget == 1) {
        host_->used(index);
        return host_->again(index);
      }
    }
  } while (queue.enable_notifications());
  host_->used(index);
}

uint8_t VirtioNet::control_command() {
  std::array<std::byte, 4> command{};
  const size_t length = copy_from_chain(host_->memory(), chain_.readable, 0, command);
  const auto group = std::to_integer<uint8_t>(command[0]);
  const auto number = std::to_integer<uint8_t>(command[1]);
  const bool set_pairs = group == kControlMultiQueue && number == kSetPairs && length == command.size();
  if (!set_pairs || (driver_features_ & kMultiQueue) == 0) return kControlError;
  const auto pairs = static_cast<uint16_t>(load_le(std::span<const std::byte>(command).subspan(2, 2)));
  if (pairs < 1 || pairs > config_.pairs) return kControlError;
  active_pairs_ = pairs;
  return kControlOk;
}

}  // namespace snug
