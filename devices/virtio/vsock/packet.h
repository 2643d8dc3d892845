// What travels in the rings of a socket device (virtio 1.2, 5.10.6).
#pragma once

#include "vmm/base/endian.h"

namespace snug {

// In front of each packet.
struct VsockHeader {
  le64 source_cid;
  le64 destination_cid;
  le32 source_port;
  le32 destination_port;
  le32 length;  // of the data behind it
  le16 type;
  le16 op;
  le32 flags;
  le32 room;       // buf_alloc: how much the sender takes before it is read
  le32 forwarded;  // fwd_cnt: how much of what the sender has got was read, modulo 2^32
};
static_assert(sizeof(VsockHeader) == 44);

enum class VsockOp : uint16_t {
  kInvalid = 0,
  kRequest = 1,
  kResponse = 2,
  kReset = 3,
  kShutdown = 4,
  kData = 5,
  kCreditUpdate = 6,
  kCreditRequest = 7,
};

constexpr uint16_t kVsockStream = 1;  // the one type there is without VIRTIO_VSOCK_F_SEQPACKET

// Of kShutdown: what the sender will not do any more. Once said they stay.
constexpr uint32_t kVsockNoReceive = 1;
constexpr uint32_t kVsockNoSend = 2;
constexpr uint32_t kVsockNothing = kVsockNoReceive | kVsockNoSend;

constexpr uint64_t kVsockHostCid = 2;

// 5.10.4: which context ids a guest can have.
constexpr bool is_guest_cid(uint64_t cid) { return cid > kVsockHostCid && cid < 0xffffffff; }

// 5.10.6.6: in the event queue. The connections are gone, and the guest's id may be another.
constexpr uint32_t kVsockTransportReset = 0;

}  // namespace snug
