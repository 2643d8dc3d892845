// One connection of a socket device: a stream of the host on this side, packets of the guest on the other,
// and the credit that bounds what is under way (virtio 1.2, 5.10.6.3).
//
// Owner: VirtioVsock. Thread: the device's lock held. The guest controls what take_packet_credit(),
// to_host() and guest_stops() are told. No call waits.
#pragma once

#include <chrono>
#include <optional>
#include <span>
#include <vector>

#include "devices/virtio/queue.h"
#include "devices/virtio/vsock/backend.h"
#include "devices/virtio/vsock/packet.h"

namespace snug {

struct VsockPorts {
  uint32_t host = 0;
  uint32_t guest = 0;
};

class VsockConnection {
 public:
  using Clock = std::chrono::steady_clock;
  enum class State {
    kOpening,    // the guest waits until the backend is less busy
    kRequested,  // the host waits for the guest's answer
    kConnected,
    kEnded,     // both sides have said that nothing follows; the guest's RST does
    kReset,     // only its RST is still to be sent
    kLeftover,  // the guest knows it no more: what it sent last is on its way to the host
  };

  // `room`: bytes held at most for a host that does not read.
  VsockConnection(uint64_t id, VsockPorts ports, State state, uint32_t room, UniqueFd socket);
  VsockConnection(const VsockConnection&) = delete;
  VsockConnection& operator=(const VsockConnection&) = delete;

  uint64_t id() const { return id_; }
  VsockPorts ports() const { return ports_; }
  State state() const { return state_; }
  int fd() const { return socket_.get(); }
  // How much of the guest's is held here.
  size_t held() const { return held_.size() - held_sent_; }
  // Whether fd() is to be watched for room.
  bool blocked() const { return held() > 0; }
  // The host's end has failed.
  bool broken() const { return broken_; }

  // --- states ---

  void accepted(UniqueFd socket);  // kOpening: the backend has it; RESPONSE follows
  void answered();                 // kRequested: the guest has taken it
  void end();                      // to kEnded; the host's end is closed
  void reset();                    // to kReset; the host's end is closed
  void leave() { state_ = State::kLeftover; }
  // Whether the guest knows that nothing follows from here.
  bool told_all() const { return told_stopped_ == kVsockNothing; }

  // VirtioVsock's own.
  VsockDone done;  // whom to tell how kRequested ends
  Clock::time_point deadline = Clock::time_point::max();
  Clock::time_point give_up = Clock::time_point::max();  // kOpening
  bool queued = false;                                   // waits for a buffer of the guest
  bool watched_for_room = false;

  // --- from the guest ---

  // Every packet tells of the guest's credit.
  void take_packet_credit(uint32_t room, uint32_t forwarded);
  void credit_asked() { tell_credit_ = true; }
  // Data behind `offset` of a packet. False: more than the guest had credit for, or after it said that
  // nothing would follow.
  bool to_host(const GuestMemory& memory, const std::vector<VirtBuffer>& buffers, uint64_t offset,
               uint32_t length);
  // Sends on what is held.
  void flush();
  // The guest has said what it will not do any more (kVsockNo...).
  void guest_stops(uint32_t flags);
  bool guest_has_left() const { return guest_stopped_ == kVsockNothing; }

  // --- from the host ---

  // What epoll says of fd().
  void host_event(uint32_t epoll_events);
  bool host_has_closed() const { return closed_; }
  // Reads into the guest's buffers. Bytes; 0: nothing came, and next() is not kData any more.
  size_t from_host(std::span<const iovec> parts);
  // How much of it the guest takes.
  uint32_t credit() const;

  // --- to the guest ---

  // What the guest is to be sent next; kData: call from_host().
  std::optional<VsockOp> next() const;
  // Completes a packet's header: `op` with its flags and this side's credit. It counts as sent.
  void fill(VsockOp op, VsockHeader& header);

 private:
  size_t send(std::span<iovec> parts);
  void hold(const GuestMemory& memory, const std::vector<VirtBuffer>& buffers, uint64_t offset,
            size_t length);
  void free_held();
  bool credit_due() const;

  const uint64_t id_;
  const VsockPorts ports_;
  State state_;
  const uint32_t room_;
  UniqueFd socket_;

  bool readable_ = false;  // the socket may have something
  bool closed_ = false;    // the socket: nothing goes either way any more
  bool broken_ = false;
  bool greet_ = false;  // REQUEST or RESPONSE is to be sent
  // kVsockNo...
  uint32_t host_stopped_ = 0;
  uint32_t told_stopped_ = 0;  // what the guest knows of it
  uint32_t guest_stopped_ = 0;

  // Of the guest's, in front of a socket that is full.
  std::vector<std::byte> held_;
  size_t held_sent_ = 0;
  std::vector<iovec> parts_;

  // Counters modulo 2^32.
  uint32_t received_ = 0;        // of the guest
  uint32_t forwarded_ = 0;       // of that, to the host
  uint32_t told_forwarded_ = 0;  // what the guest knows of it
  bool tell_credit_ = false;
  uint32_t sent_ = 0;  // to the guest
  uint32_t peer_room_ = 0;
  uint32_t peer_forwarded_ = 0;
  bool credit_wanted_ = false;  // asked for; nothing new was heard since
};

}  // namespace snug
