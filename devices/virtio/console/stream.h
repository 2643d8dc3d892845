// The bytes of one console port: between its pair of queues and its peer, straight from and to the guest's
// buffers. A side that stalls stalls the other: the guest's buffers stay in its ring, the peer's bytes stay
// with the host's kernel.
//
// Owner: a console device. Thread: as VirtioDevice.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "devices/virtio/console/peer.h"
#include "devices/virtio/device.h"

namespace snug {

class PortStream {
 public:
  // What a peer that takes no more means to the guest.
  enum class WhenStalled {
    kHold,  // its buffers stay in the ring
    kDrop,  // kKept bytes are kept, the newest beyond them dropped: Linux writes to a console port with a
            // spin lock held and turns until the buffer comes back
  };
  static constexpr size_t kKept = size_t{256} << 10;

  // `peer`: none, then all that the guest says is dropped. It outlives this.
  PortStream(PortPeer* peer, WhenStalled when_stalled) : peer_(peer), when_stalled_(when_stalled) {}

  void start(VirtioHost& host, uint16_t receive_queue, uint16_t transmit_queue);
  void stop();
  // The driver takes the receive or the transmit queue back.
  void stop_queue(uint16_t queue);
  // As those of VirtioDevice.
  void settle();
  void save(SectionWriter& out) const;
  void restore(SectionReader& in);

  // The guest may have given buffers or the peer bytes.
  void receive();
  // The guest may have given bytes or the peer may take some.
  void transmit();
  // At once and past the queues; dropped where kDrop drops.
  void send(std::span<const std::byte> bytes);

  uint64_t dropped_bytes() const { return dropped_; }
  // Bytes of the longest of the guest's buffers since start().
  uint64_t longest_buffer() const { return longest_; }

 private:
  // A chain of the guest that is not done with.
  struct Held {
    VirtChain chain;
    bool valid = false;
    uint64_t done = 0;  // bytes of it
  };
  enum class Sent { kAll, kStalled, kTurnOver };

  Sent send_chain(uint64_t& budget);
  size_t send_part(uint64_t length);
  void send_kept();
  bool connected() const { return peer_ != nullptr && peer_->connected(); }

  PortPeer* peer_;
  WhenStalled when_stalled_;
  VirtioHost* host_ = nullptr;
  uint16_t receive_queue_ = 0;
  uint16_t transmit_queue_ = 0;
  Held in_;
  Held out_;
  uint64_t done_before_ = 0;     // bytes of the next chain of the transmit queue, which was put back
  std::vector<std::byte> kept_;  // kDrop only: what the peer has not taken yet, oldest first
  uint64_t dropped_ = 0;
  uint64_t longest_ = 0;
  std::vector<iovec> parts_;
};

}  // namespace snug
