#include "devices/virtio/vsock/connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace snug {

VsockConnection::VsockConnection(uint64_t id, VsockPorts ports, State state, uint32_t room, UniqueFd socket)
    : id_(id),
      ports_(ports),
      state_(state),
      room_(room),
      socket_(std::move(socket)),
      greet_(state != State::kOpening) {}

// --- states -----------------------------------------------------------------------------------------

void VsockConnection::accepted(UniqueFd socket) {
  socket_ = std::move(socket);
  state_ = State::kConnected;
  greet_ = true;
}

void VsockConnection::answered() { state_ = State::kConnected; }

void VsockConnection::end() {
  state_ = State::kEnded;
  socket_.reset();
  free_held();
}

void VsockConnection::reset() {
  state_ = State::kReset;
  socket_.reset();
  free_held();
}

// --- from the guest ---------------------------------------------------------------------------------

void VsockConnection::take_packet_credit(uint32_t room, uint32_t forwarded) {
  peer_room_ = room;
  peer_forwarded_ = forwarded;
  if (credit() > 0) credit_wanted_ = false;
}

bool VsockConnection::to_host(const GuestMemory& memory, const std::vector<VirtBuffer>& buffers,
                              uint64_t offset, uint32_t length) {
  if (length > room_ - held() || (guest_stopped_ & kVsockNoSend) != 0) return false;
  if (length == 0) return true;
  received_ += length;
  size_t sent = 0;
  if (held() == 0) {
    parts_.clear();
    if (!append_chain_iovecs(memory, buffers, offset, length, parts_)) return false;
    sent = send(parts_);
  }
  if (broken_ || (host_stopped_ & kVsockNoReceive) != 0) {
    // Nobody reads it any more.
    forwarded_ += length;
    return true;
  }
  forwarded_ += static_cast<uint32_t>(sent);
  if (sent < length) hold(memory, buffers, offset + sent, length - sent);
  return true;
}

// Never more than room_ bytes, in memory that goes back as soon as they are sent.
void VsockConnection::hold(const GuestMemory& memory, const std::vector<VirtBuffer>& buffers, uint64_t offset,
                           size_t length) {
  held_.erase(held_.begin(), held_.begin() + static_cast<ptrdiff_t>(held_sent_));
  held_sent_ = 0;
  const size_t before = held_.size();
  if (before + length > held_.capacity())
    held_.reserve(std::min<size_t>(room_, std::max(2 * held_.capacity(), before + length)));
  held_.resize(before + length);
  copy_from_chain(memory, buffers, offset, std::span(held_).subspan(before));
}

void VsockConnection::free_held() {
  held_ = {};
  held_sent_ = 0;
}

void VsockConnection::flush() {
  if (held() == 0) return;
  iovec part{held_.data() + held_sent_, held()};
  const size_t sent = send({&part, 1});
  const bool useless = broken_ || (host_stopped_ & kVsockNoReceive) != 0;
  forwarded_ += static_cast<uint32_t>(useless ? held() : sent);
  held_sent_ += sent;
  if (!useless && held() > 0) return;
  free_held();
  if ((guest_stopped_ & kVsockNoSend) != 0) ::shutdown(socket_.get(), SHUT_WR);
}

// How much the socket has taken.
size_t VsockConnection::send(std::span<iovec> parts) {
  if (broken_ || (host_stopped_ & kVsockNoReceive) != 0) return 0;
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  ssize_t sent = -1;
  do {
    sent = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) return static_cast<size_t>(sent);
  if (errno == EPIPE) {
    host_stopped_ |= kVsockNoReceive;
  } else if (errno != EAGAIN) {
    broken_ = true;
  }
  return 0;
}

void VsockConnection::guest_stops(uint32_t flags) {
  guest_stopped_ |= flags & kVsockNothing;
  if ((guest_stopped_ & kVsockNoReceive) != 0) {
    readable_ = false;
    ::shutdown(socket_.get(), SHUT_RD);
  }
  if ((guest_stopped_ & kVsockNoSend) != 0 && held() == 0) ::shutdown(socket_.get(), SHUT_WR);
}

// --- from the host ----------------------------------------------------------------------------------

void VsockConnection::host_event(uint32_t epoll_events) {
  const bool reads = (guest_stopped_ & kVsockNoReceive) == 0 && (host_stopped_ & kVsockNoSend) == 0;
  if ((epoll_events & EPOLLHUP) != 0) closed_ = true;
  if ((epoll_events & ~EPOLLOUT) != 0 && reads) readable_ = true;
  // Otherwise it is found where the stream ends.
  if (closed_ && !reads) host_stopped_ = kVsockNothing;
}

size_t VsockConnection::from_host(std::span<const iovec> parts) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts.data());
  message.msg_iovlen = parts.size();
  ssize_t count = -1;
  do {
    count = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT);
  } while (count < 0 && errno == EINTR);
  if (count > 0) {
    sent_ += static_cast<uint32_t>(count);
    return static_cast<size_t>(count);
  }
  readable_ = false;
  if (count == 0) {
    host_stopped_ |= closed_ ? kVsockNothing : kVsockNoSend;
  } else if (errno != EAGAIN) {
    broken_ = true;
  }
  return 0;
}

uint32_t VsockConnection::credit() const {
  const uint32_t under_way = sent_ - peer_forwarded_;
  return under_way < peer_room_ ? peer_room_ - under_way : 0;
}

// --- to the guest -----------------------------------------------------------------------------------

// Every packet tells of it; one of its own is due when the guest asks, or when it believes that less than
// half of the room is left and there is more.
bool VsockConnection::credit_due() const {
  return tell_credit_ || (forwarded_ != told_forwarded_ && received_ - told_forwarded_ > room_ / 2);
}

std::optional<VsockOp> VsockConnection::next() const {
  switch (state_) {
    case State::kReset:
      return VsockOp::kReset;
    case State::kRequested:
      return greet_ ? std::optional(VsockOp::kRequest) : std::nullopt;
    case State::kConnected:
      break;
    case State::kOpening:
    case State::kEnded:
    case State::kLeftover:
      return std::nullopt;
  }
  if (greet_) return VsockOp::kResponse;
  if ((host_stopped_ & ~told_stopped_) != 0) return VsockOp::kShutdown;
  if (readable_ && credit() > 0) return VsockOp::kData;
  if (credit_due()) return VsockOp::kCreditUpdate;
  if (readable_ && !credit_wanted_) return VsockOp::kCreditRequest;
  return std::nullopt;
}

void VsockConnection::fill(VsockOp op, VsockHeader& header) {
  header.op = static_cast<uint16_t>(op);
  header.room = room_;
  header.forwarded = told_forwarded_ = forwarded_;
  tell_credit_ = false;
  if (op == VsockOp::kRequest || op == VsockOp::kResponse) greet_ = false;
  if (op == VsockOp::kCreditRequest) credit_wanted_ = true;
  if (op == VsockOp::kShutdown) header.flags = told_stopped_ = host_stopped_;
}

}  // namespace snug
