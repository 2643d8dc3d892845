// Commands of the control queue (virtio 1.2, 5.1.6.5): taken apart here, carried out by the device.
//
// The guest controls every byte.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "devices/virtio/queue.h"

namespace snug {

struct NetCommand {
  enum class Kind {
    kInvalid,      // unknown, not negotiated, or of a wrong length
    kFilter,       // which frames the guest wants; it gets them all, which 5.1.6.5.1 allows
    kSetMac,       // mac
    kAnnounced,    // the guest has announced itself
    kSetPairs,     // pairs: any number
    kSetOffloads,  // offloads: any bits
  };
  Kind kind = Kind::kInvalid;
  std::array<uint8_t, 6> mac{};
  uint16_t pairs = 0;
  uint64_t offloads = 0;
};

// `features`: what was negotiated.
NetCommand parse_net_command(const GuestMemory& memory, const std::vector<VirtBuffer>& command,
                             uint64_t features);

}  // namespace snug
