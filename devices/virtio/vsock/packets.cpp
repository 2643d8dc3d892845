// The rings of a socket device: packets from the guest, packets to it.
#include <algorithm>
#include <cerrno>

#include "devices/virtio/vsock/vsock.h"

namespace snug {
namespace {

constexpr uint64_t kHeader = sizeof(VsockHeader);
// Buffers of the guest that one read of a socket fills, and how much that is at most.
constexpr size_t kSparesMax = 16;
constexpr uint64_t kReadMax = 256 << 10;
// A buffer smaller than this goes back empty: nothing useful fits into it.
constexpr uint64_t kBufferMin = 64;
constexpr size_t kPartsMax = 1024;  // UIO_MAXIOV

}  // namespace

// --- from the guest ---------------------------------------------------------------------------------

void VirtioVsock::transmit() {
  VirtQueue& queue = host_->queue(kTransmit);
  unsigned budget = queue.size();
  do {
    queue.disable_notifications();
    for (;;) {
      // 5.10.6.1.2: answers wait for buffers of the guest. It gets no more of them than it takes.
      transmit_waits_ = refusals_.size() >= kResetsMax;
      if (transmit_waits_) return host_->used(kTransmit);
      const auto popped = queue.pop(chain_);
      if (popped == VirtQueue::Pop::kBroken) return halt(queue.why());
      if (popped == VirtQueue::Pop::kEmpty) break;
      take_packet();
      (void)queue.push(chain_.head, 0);
      if (budget-- == 1) {
        // Others want their turn.
        host_->used(kTransmit);
        return host_->again(kTransmit);
      }
    }
  } while (queue.enable_notifications());
  host_->used(kTransmit);
}

void VirtioVsock::take_packet() {
  VsockHeader header;
  if (copy_from_chain(host_->memory(), chain_.readable, 0, std::as_writable_bytes(std::span(&header, 1))) !=
      kHeader)
    return complaints_.warn("virtio vsock: the guest sent {} bytes, less than a header",
                            chain_.readable_bytes());
  if (header.source_cid != config_.cid || header.destination_cid != kVsockHostCid)
    return complaints_.warn(
        "virtio vsock: the guest sent a packet from {} to {}, which are not itself and the host",
        uint64_t{header.source_cid}, uint64_t{header.destination_cid});
  const VsockPorts ports{header.destination_port, header.source_port};
  const auto op = static_cast<VsockOp>(uint16_t{header.op});
  // 5.10.6.4.2
  if (header.type != kVsockStream && op != VsockOp::kReset) return refuse(ports, header.type);
  VsockConnection* connection = find(ports);
  if (connection != nullptr) return take_packet(header, *connection, chain_.readable_bytes() - kHeader);
  if (op == VsockOp::kRequest) return take_request(header);
  if (op != VsockOp::kReset) refuse(ports);
}

void VirtioVsock::refuse(VsockPorts ports, uint16_t type) { refusals_.push_back({ports, type}); }

void VirtioVsock::take_request(const VsockHeader& header) {
  const VsockPorts ports{header.destination_port, header.source_port};
  if (connections_.size() >= kConnectionsMax) return refuse(ports);
  auto stream = backend_.open(ports.host);
  const bool busy = !stream && stream.error() == EAGAIN;
  if (!stream && !busy) return refuse(ports);
  VsockConnection* connection =
      busy ? add(ports, State::kOpening, {}) : add(ports, State::kConnected, std::move(*stream));
  if (connection == nullptr) return refuse(ports);
  connection->take_packet_credit(header.room, header.forwarded);
  if (busy) {
    const auto now = Clock::now();
    connection->give_up = now + config_.busy_timeout;
    set_deadline(*connection, now + config_.busy_pause);
  }
  settle(*connection);
}

void VirtioVsock::take_packet(const VsockHeader& header, VsockConnection& connection, uint64_t data_there) {
  const auto op = static_cast<VsockOp>(uint16_t{header.op});
  const State state = connection.state();
  if (op == VsockOp::kReset) return take_reset(connection);
  if (state == State::kReset) return;  // the guest will hear of it
  if (header.length > data_there) return give_up(connection, "a packet longer than its buffers");
  connection.take_packet_credit(header.room, header.forwarded);
  switch (op) {
    case VsockOp::kResponse:
      if (state != State::kRequested) return give_up(connection, "an answer that nobody asked for");
      connection.deadline = Clock::time_point::max();
      connection.answered();
      std::exchange(connection.done, nullptr)({0, connection.ports().host, connection.fd()});
      break;
    case VsockOp::kData:
      if (state == State::kEnded) return;  // was on its way when the host closed
      if (state != State::kConnected) return give_up(connection, "data before there is a connection");
      if (!connection.to_host(host_->memory(), chain_.readable, kHeader, header.length))
        return give_up(connection, "data beyond its credit or its own end");
      break;
    case VsockOp::kCreditUpdate:
      break;
    case VsockOp::kCreditRequest:
      connection.credit_asked();
      break;
    case VsockOp::kShutdown:
      if (state != State::kEnded && state != State::kConnected)
        return give_up(connection, "the end of what has not begun");
      connection.guest_stops(header.flags);
      if (connection.guest_has_left()) return finish(connection);
      break;
    default:
      return give_up(connection, "an operation that does not exist or not here");
  }
  settle(connection);
}

// 5.10.6.5: the RST that confirms the end; its ports are free again.
void VirtioVsock::finish(VsockConnection& connection) {
  refuse(connection.ports());
  leave(connection);
}

void VirtioVsock::take_reset(VsockConnection& connection) {
  if (connection.state() == State::kRequested) return remove(connection, ECONNREFUSED);
  leave(connection);
}

// The guest breaks the rules of one connection: the others do not suffer.
void VirtioVsock::give_up(VsockConnection& connection, const char* why) {
  const VsockPorts ports = connection.ports();
  complaints_.warn("virtio vsock: connection of guest port {} and host port {} reset: the guest sent {}",
                   ports.guest, ports.host, why);
  refuse(ports);
  remove(connection);
}

// --- to the guest -----------------------------------------------------------------------------------

// Gives the guest what there is for it, as long as it has buffers.
void VirtioVsock::pump() {
  if (host_ == nullptr || halted_ || guest_hears_event()) return;
  VirtQueue& queue = host_->queue(kReceive);
  if (!queue.running()) return;
  queue.disable_notifications();
  unsigned turns = queue.size();
  while (!refusals_.empty() || !ready_.empty()) {
    if (!find_buffers(queue)) return halt(queue.why());
    if (spare_count_ == 0) {
      if (queue.enable_notifications()) continue;
      break;
    }
    if (turns-- == 0) {
      host_->again(kReceive);
      break;
    }
    if (!refusals_.empty()) {
      send_refusal(queue);
      continue;
    }
    VsockConnection& connection = *connections_.at(ready_.front());
    ready_.pop_front();
    connection.queued = false;
    serve(queue, connection);
  }
  host_->used(kReceive);
  if (transmit_waits_ && refusals_.size() < kResetsMax) host_->again(kTransmit);
}

// False: the ring is broken.
bool VirtioVsock::find_buffers(VirtQueue& queue) {
  for (unsigned budget = queue.size(); budget > 0 && spare_count_ < kSparesMax; --budget) {
    if (spare_count_ == spares_.size()) spares_.emplace_back();
    Spare& spare = spares_[spare_count_];
    const auto popped = queue.pop(spare.chain);
    if (popped == VirtQueue::Pop::kBroken) return false;
    if (popped == VirtQueue::Pop::kEmpty) break;
    const uint64_t room = spare.chain.writable_bytes();
    if (room < kBufferMin) {
      (void)queue.push(spare.chain.head, 0);
      continue;
    }
    spare.room = room - kHeader;
    ++spare_count_;
  }
  return true;
}

VsockHeader VirtioVsock::header_for(VsockPorts ports) const {
  VsockHeader header;
  header.source_cid = kVsockHostCid;
  header.destination_cid = config_.cid;
  header.source_port = ports.host;
  header.destination_port = ports.guest;
  header.type = kVsockStream;
  return header;
}

void VirtioVsock::send_packet(VirtQueue& queue, const Spare& spare, const VsockHeader& header, size_t data) {
  copy_to_chain(host_->memory(), spare.chain.writable, 0, std::as_bytes(std::span(&header, 1)));
  (void)queue.push(spare.chain.head, static_cast<uint32_t>(kHeader + data));
}

void VirtioVsock::forget_spares(size_t count) {
  const auto first = spares_.begin();
  std::rotate(first, first + static_cast<ptrdiff_t>(count), first + static_cast<ptrdiff_t>(spare_count_));
  spare_count_ -= count;
}

void VirtioVsock::send_refusal(VirtQueue& queue) {
  VsockHeader header = header_for(refusals_.front().ports);
  header.type = refusals_.front().type;
  header.op = static_cast<uint16_t>(VsockOp::kReset);
  refusals_.pop_front();
  send_packet(queue, spares_.front(), header, 0);
  forget_spares(1);
}

// One turn of a connection: one packet, or as much data as one read gives.
void VirtioVsock::serve(VirtQueue& queue, VsockConnection& connection) {
  while (const auto op = connection.next()) {
    if (*op == VsockOp::kData) {
      if (!send_data(queue, connection)) continue;
      break;
    }
    return send_control(queue, connection, *op);
  }
  settle(connection);
}

void VirtioVsock::send_control(VirtQueue& queue, VsockConnection& connection, VsockOp op) {
  VsockHeader header = header_for(connection.ports());
  connection.fill(op, header);
  send_packet(queue, spares_.front(), header, 0);
  forget_spares(1);
  if (op == VsockOp::kReset) return remove(connection);
  if (op == VsockOp::kShutdown && connection.told_all()) {
    // 5.10.6.5: the guest confirms it by an RST when it has read what there was.
    connection.end();
    set_deadline(connection, Clock::now() + config_.close_timeout);
  }
  settle(connection);
}

// False: nothing came.
bool VirtioVsock::send_data(VirtQueue& queue, VsockConnection& connection) {
  uint64_t wanted = std::min<uint64_t>(connection.credit(), kReadMax);
  parts_.clear();
  for (const Spare& spare : std::span(spares_).first(spare_count_)) {
    if (!parts_.empty() && parts_.size() + spare.chain.writable.size() > kPartsMax) break;
    const uint64_t part = std::min(wanted, spare.room);
    if (!append_chain_iovecs(host_->memory(), spare.chain.writable, kHeader, part, parts_)) break;
    wanted -= part;
    if (wanted == 0) break;
  }
  const size_t count = connection.from_host(parts_);
  size_t used = 0;
  for (size_t left = count; left > 0; ++used) {
    const Spare& spare = spares_[used];
    const size_t part = std::min<uint64_t>(left, spare.room);
    VsockHeader header = header_for(connection.ports());
    connection.fill(VsockOp::kData, header);
    header.length = static_cast<uint32_t>(part);
    wrote_chain(host_->memory(), spare.chain.writable, kHeader, part);
    send_packet(queue, spare, header, part);
    left -= part;
  }
  forget_spares(used);
  return count > 0;
}

}  // namespace snug
