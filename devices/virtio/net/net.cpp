#include "devices/virtio/net/net.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "devices/virtio/net/features.h"
#include "vmm/base/assertion.h"
#include "vmm/base/endian.h"
#include "vmm/base/log.h"

namespace snug {
namespace {

constexpr uint8_t kControlOk = 0;  // 5.1.6.5
constexpr uint8_t kControlError = 1;
constexpr uint16_t kControlSize = 64;  // entries

constexpr size_t kHeader = sizeof(VirtioNetHeader);
constexpr size_t kBatch = 32;     // frames handed to the backend at once
constexpr size_t kPartsMax = 64;  // a frame in more parts is copied together first

}  // namespace

VirtioNet::VirtioNet(NetConfig config, std::unique_ptr<NetBackend> backend)
    : config_(std::move(config)),
      queue_sizes_(2 * config_.pairs, config_.queue_size),
      backend_(std::move(backend)),
      mac_(config_.mac),
      pairs_(config_.pairs) {
  SNUG_ASSERT(config_.pairs >= 1 && config_.pairs <= kMaxPairs);
  if (has_control()) queue_sizes_.push_back(kControlSize);
}

uint64_t VirtioNet::features() const {
  uint64_t bits =
      net::kMac | net::kStatus | net::kMergeableBuffers | net::kGuestChecksum | backend_->offloads();
  if (config_.mtu != 0) bits |= net::kMtu;
  if (has_control())
    bits |= net::kControlQueue | net::kControlReceive | net::kControlMac | net::kGuestAnnounce;
  if (has_control() && backend_->offloads() != 0) bits |= net::kControlOffloads;
  if (config_.pairs > 1) bits |= net::kMultiQueue;
  return bits & ~backend_->refused_features();
}

void VirtioNet::read_config(uint64_t offset, std::span<std::byte> data) const {
  // 5.1.4
  std::array<std::byte, 12> image{};
  const std::span<std::byte> all(image);
  std::memcpy(image.data(), mac_.data(), mac_.size());
  store_le(all.subspan(6, 2), (link_up_ ? net::kLinkUp : 0) | (announce_ ? net::kAnnounce : 0));
  store_le(all.subspan(8, 2), config_.pairs);
  store_le(all.subspan(10, 2), config_.mtu);
  if (offset >= image.size()) return;
  const size_t length = std::min<size_t>(data.size(), image.size() - offset);
  std::copy_n(image.begin() + static_cast<ptrdiff_t>(offset), length, data.begin());
}

void VirtioNet::start(VirtioHost& host, uint64_t features) {
  host_ = &host;
  driver_features_ = features;
  offloads_ = features & net::kGuestOffloads;
  active_pairs_ = 1;
  backend_->start(features);
  if (link_up_) offer_rings(0);
  check_backend();
}

bool VirtioNet::stop() {
  for (uint16_t pair = 0; pair < pairs_.size(); ++pair) {
    take_back(pair);
    pairs_[pair].foreign = false;
    pairs_[pair].outgoing.count = pairs_[pair].incoming.count = 0;
  }
  backend_->stop();
  host_ = nullptr;
  mac_ = config_.mac;
  announce_ = false;
  return true;
}

bool VirtioNet::stop_queue(uint16_t index) {
  if (index < 2 * pair_count()) {
    Pair& pair = pairs_[index / 2];
    (index % 2 == 0 ? pair.incoming.count : pair.outgoing.count) = 0;
  }
  return true;
}

void VirtioNet::set_link(bool up) {
  if (link_up_ == up) return;
  link_up_ = up;
  if (host_ == nullptr) return;
  // 5.1.6.5.4: what is at the other end may be another network.
  announce_ = up && (driver_features_ & net::kGuestAnnounce) != 0;
  for (uint16_t pair = 0; pair < active_pairs_; ++pair) {
    if (!up) take_back(pair);
    if (up && pairs_[pair].foreign) offer_rings(pair);
  }
  host_->config_changed();
}

void VirtioNet::connect(std::unique_ptr<NetBackend> backend) {
  backend_ = std::move(backend);
  told_broken_ = false;
  if (host_ == nullptr) return;
  backend_->start(driver_features_);
  for (uint16_t pair = 0; pair < pair_count(); ++pair)
    if (pairs_[pair].outgoing.count > 0) transmit(pair);
  check_backend();
}

// --- backends that work on rings by themselves ------------------------------------------------------

void VirtioNet::offer_rings(uint16_t index) {
  Pair& pair = pairs_[index];
  const auto receive = host_->ring_place(static_cast<uint16_t>(2 * index));
  const auto transmit = host_->ring_place(static_cast<uint16_t>(2 * index + 1));
  std::optional<NetBackend::Kicks> kicks;
  if (receive && transmit && receive->interrupt_fd >= 0 && transmit->interrupt_fd >= 0)
    kicks = backend_->take_over(index, host_->memory(), *receive, *transmit);
  if (!kicks) {
    if (pair.foreign) host_->needs_reset("a queue that the kernel worked on cannot be taken up again");
    return;
  }
  pair.taken_over = pair.foreign = true;
  log_debug("{}: the kernel works on the rings of pair {}", config_.name, index);
  host_->ring_elsewhere(static_cast<uint16_t>(2 * index), kicks->receive);
  host_->ring_elsewhere(static_cast<uint16_t>(2 * index + 1), kicks->transmit);
}

void VirtioNet::take_back(uint16_t index) {
  Pair& pair = pairs_[index];
  if (!std::exchange(pair.taken_over, false)) return;
  backend_->let_go(index);
  host_->ring_elsewhere(static_cast<uint16_t>(2 * index), -1);
  host_->ring_elsewhere(static_cast<uint16_t>(2 * index + 1), -1);
}

void VirtioNet::interrupt_moved(uint16_t queue) {
  const auto pair = static_cast<uint16_t>(queue / 2);
  if (pair >= pairs_.size() || !pairs_[pair].taken_over) return;
  const auto place = host_->ring_place(queue);
  backend_->interrupt_moved(pair, queue % 2 == 1, place ? place->interrupt_fd : -1);
}

void VirtioNet::check_backend() {
  if (!backend_->broken() || std::exchange(told_broken_, true)) return;
  if (config_.broken) config_.broken();
}

// 5.1.2: the control queue lies behind the pairs that were negotiated.
uint16_t VirtioNet::pair_count() const {
  return (driver_features_ & net::kMultiQueue) != 0 ? config_.pairs : 1;
}

void VirtioNet::queue_ready(uint16_t index) {
  if (index >= 2 * pair_count()) {
    if (index == 2 * pair_count() && (driver_features_ & net::kControlQueue) != 0) control();
    return;
  }
  const auto pair = static_cast<uint16_t>(index / 2);
  if (pairs_[pair].foreign) return;
  if (index % 2 == 0) {
    receive(pair);
  } else {
    transmit(pair);
  }
  check_backend();
}

void VirtioNet::backend_ready(uint16_t pair) {
  if (host_ == nullptr || pair >= pair_count()) return;
  if (pairs_[pair].foreign) {
    if (backend_->ring_broken(pair)) host_->needs_reset("a ring that the kernel refuses");
    return;
  }
  receive(pair);
  // The guest may have nothing more to send before the other side has answered to the end of a cut frame.
  backend_->flush(pair);
  check_backend();
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
        Outgoing& out = outgoing.add();
        if (parse(queue, out)) {
          std::swap(out.chain, chain_);
        } else {
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
  out.parts.clear();
  out.frame.length = static_cast<uint32_t>(bytes - kHeader);
  if (copy_from_chain(memory, chain_.readable, 0, std::as_writable_bytes(std::span(&out.frame.header, 1))) !=
      kHeader)
    return false;
  // 5.1.6.2.1: nothing but zeros then.
  if ((driver_features_ & net::kChecksum) == 0) out.frame.header = {};
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
  for (size_t i = 0; i < sent; ++i) used_.push_back({outgoing.items[i].chain.head, 0});
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
  const bool mergeable = (driver_features_ & net::kMergeableBuffers) != 0;
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
  if ((driver_features_ & net::kGuestChecksum) == 0) header.flags = 0;
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

// --- snapshots --------------------------------------------------------------------------------------

std::string VirtioNet::unsaveable() const {
  const bool foreign = std::ranges::any_of(pairs_, &Pair::foreign);
  return foreign ? "the host's kernel works on its rings (vhost)" : "";
}

bool VirtioNet::settle() {
  for (uint16_t pair = 0; pair < pair_count(); ++pair) {
    Reused<Incoming>& incoming = pairs_[pair].incoming;
    VirtQueue& receive = host_->queue(static_cast<uint16_t>(2 * pair));
    while (incoming.count > 0) receive.put_back(std::move(incoming.items[--incoming.count].chain));
    Reused<Outgoing>& outgoing = pairs_[pair].outgoing;
    VirtQueue& transmit = host_->queue(static_cast<uint16_t>(2 * pair + 1));
    while (outgoing.count > 0) transmit.put_back(std::move(outgoing.items[--outgoing.count].chain));
  }
  return true;
}

void VirtioNet::save(SectionWriter& out) const {
  out.bytes(std::as_bytes(std::span(mac_)));
  out.number(active_pairs_);
  out.number(offloads_);
}

void VirtioNet::restore(SectionReader& in) {
  std::array<uint8_t, 6> mac{};
  in.bytes(std::as_writable_bytes(std::span(mac)));
  // A guest without a control queue has not told of another one than it was shown, and sees what it has here.
  if ((driver_features_ & net::kControlQueue) != 0) mac_ = mac;
  const auto pairs = in.number<uint16_t>();
  const auto offloads = in.number<uint64_t>();
  if (!in.good()) return;
  if (pairs != 1 && !set_pairs(pairs)) return in.refuse(fmt::format("{} pairs of queues", pairs));
  if ((offloads & ~(driver_features_ & net::kGuestOffloads)) != 0)
    return in.refuse(fmt::format("offloads {:#x}, which were not negotiated", offloads));
  if (offloads != offloads_) backend_->set_offloads(offloads);
  offloads_ = offloads;
  // What is at the other end now knows nothing of this guest.
  announce_ = (driver_features_ & net::kGuestAnnounce) != 0;
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
      const bool done = execute(parse_net_command(host_->memory(), chain_.readable, driver_features_));
      host_->config_updated();
      const std::byte answer{done ? kControlOk : kControlError};
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

bool VirtioNet::execute(const NetCommand& command) {
  switch (command.kind) {
    case NetCommand::Kind::kInvalid:
      return false;
    case NetCommand::Kind::kFilter:
      return true;
    case NetCommand::Kind::kSetMac:
      mac_ = command.mac;
      return true;
    case NetCommand::Kind::kAnnounced:
      announce_ = false;
      return true;
    case NetCommand::Kind::kSetPairs:
      return set_pairs(command.pairs);
    case NetCommand::Kind::kSetOffloads:
      // Those that were negotiated, no others.
      if ((command.offloads & ~(driver_features_ & net::kGuestOffloads)) != 0) return false;
      offloads_ = command.offloads;
      backend_->set_offloads(offloads_);
      return true;
  }
  return false;
}

bool VirtioNet::set_pairs(uint16_t pairs) {
  if (pairs < 1 || pairs > config_.pairs) return false;
  for (uint16_t pair = pairs; pair < active_pairs_; ++pair) take_back(pair);
  backend_->set_pairs(pairs);
  for (uint16_t pair = active_pairs_; pair < pairs && link_up_; ++pair) offer_rings(pair);
  active_pairs_ = pairs;
  return true;
}

}  // namespace snug
