// Where a network device's frames go and come from.
//
// Thread: the device's lock held. No call waits.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "devices/virtio/device.h"
#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug {

// In front of each frame in the guest's buffers (virtio 1.2, 5.1.6).
struct VirtioNetHeader {
  uint8_t flags = 0;
  uint8_t gso_type = 0;
  uint16_t header_length = 0;
  uint16_t gso_size = 0;
  uint16_t checksum_start = 0;
  uint16_t checksum_offset = 0;
  uint16_t buffers = 0;
};
static_assert(sizeof(VirtioNetHeader) == 12);

// 5.1.6: flags.
constexpr uint8_t kNetNeedsChecksum = 1;
constexpr uint8_t kNetChecksumGood = 2;

// An Ethernet frame without its check sequence.
constexpr uint32_t kFrameMin = 14;
constexpr uint32_t kFrameMax = 65535;

// A frame of the guest, in its memory.
struct OutFrame {
  VirtioNetHeader header;
  std::span<const iovec> parts;
  uint32_t length = 0;  // of all parts: kFrameMin to kFrameMax
};

struct InFrame {
  VirtioNetHeader header;
  std::span<const std::byte> data;  // valid until the next call
};

class NetBackend {
 public:
  virtual ~NetBackend() = default;
  // Feature bits (5.1.3) that it can do: offloads, which its headers then carry.
  virtual uint64_t offloads() const = 0;
  // Features of rings and buffers that it does not want to be negotiated.
  virtual uint64_t refused_features() const { return 0; }
  // The driver is ready and has taken these features. What came in before is dropped.
  virtual void start(uint64_t features) = 0;
  // The driver is not there any more: nothing of it is touched once this returns.
  virtual void stop() {}
  // Of the offloads for the guest, those it wants from now on.
  virtual void set_offloads(uint64_t /*features*/) {}
  // How many of its pairs of queues the guest uses from now on; one after start().
  virtual void set_pairs(uint16_t /*pairs*/) {}
  // Sends as many frames as there is room for, in order; returns how many. The rest is tried again when
  // fd() has become writable.
  virtual size_t send(uint16_t pair, std::span<const OutFrame> frames) = 0;
  // fd() has become writable: what it holds of frames that count as sent goes on its way.
  virtual void flush(uint16_t /*pair*/) {}
  // The next frame from outside, again and again until it is taken; nothing when there is none for now:
  // fd() then becomes readable with the next one.
  virtual std::optional<InFrame> next(uint16_t pair) = 0;
  virtual void take(uint16_t pair) = 0;
  // To be watched for both directions, edge-triggered.
  virtual int fd(uint16_t pair) const = 0;
  // The other side is gone: frames are dropped, none come.
  virtual bool broken() const = 0;
  // What it holds of frames that are half way through it, for a backend in another process that has the other
  // side from now on, and is made of it. Nothing goes through this one any more.
  virtual std::vector<std::byte> half_way() const { return {}; }

  // --- backends that can do without this process ---

  struct Kicks {
    int receive;  // what the doorbells of the two queues add 1 to
    int transmit;
  };
  // Works on a pair's rings by itself from now on: neither send() nor next() is called for it. Nothing: it
  // cannot.
  virtual std::optional<Kicks> take_over(uint16_t /*pair*/, const GuestMemory&,
                                         const VirtioRingPlace& /*receive*/,
                                         const VirtioRingPlace& /*transmit*/) {
    return std::nullopt;
  }
  // Lets go of both rings; take_over() goes on where it left off.
  virtual void let_go(uint16_t /*pair*/) {}
  virtual void interrupt_moved(uint16_t /*pair*/, bool /*transmit*/, int /*event_fd*/) {}
  // Of a pair that was taken over: whether a ring was found to break the rules.
  virtual bool ring_broken(uint16_t /*pair*/) { return false; }
};

// Frames over a connected stream socket, each behind its length as a 32-bit big-endian number: what passt
// and QEMU's "-netdev stream" speak. No offloads.
std::unique_ptr<NetBackend> make_stream_backend(UniqueFd socket);
// The same on a socket on which another backend has been at work: `half_way` is of that, and no frame is
// lost.
std::unique_ptr<NetBackend> continue_stream_backend(UniqueFd socket, std::span<const std::byte> half_way);

// A tap interface of the kernel (Documentation/networking/tuntap.rst). The descriptors are the caller's and
// outlive the backend.
struct TapFiles {
  std::vector<int>
      taps;  // for each pair of queues: non-blocking, IFF_NO_PI, IFF_VNET_HDR, headers of 12 bytes
  std::vector<int> vhost;  // as many, by VhostNet::prepare(); or none: frames go through this process
  uint64_t vhost_features = 0;
};

// Frames through a tap interface, with checksums and segmentation left to whoever is best at it. Errors: no
// descriptor left.
Result<std::unique_ptr<NetBackend>> make_tap_backend(const TapFiles& files);

}  // namespace snug
