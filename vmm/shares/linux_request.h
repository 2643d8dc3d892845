// What Linux's driver for virtio-fs does not say: that a signal has come to a process whose request waits.
// FUSE has FUSE_INTERRUPT for it, which the driver never sends (Linux 6.1, and those since). A process that
// waits for a lock could not be killed until it had the lock; and if the one who has it waits for that end,
// as a parent does for its child, never.
//
// The driver's own note of it is next to what it sends: in its struct fuse_req (fs/fuse/fuse_i.h), the flags
// of a request, a long, lie right in front of the header, which is a buffer of its own. That is nothing
// that the guest has promised. So nothing is believed but the one value that a request has which was sent,
// waits, and was interrupted; where flags or their place are others there is no such value, and a lock is
// waited for to its end. A wrong guess would be EINTR for a system call, in the guest that has it so.
#pragma once

#include <cstdint>

#include "vmm/core/guest_memory.h"

namespace snug::linux_request {

// Bits of the flags.
constexpr uint64_t kHasReply = 1 << 0;     // FR_ISREPLY
constexpr uint64_t kCounted = 1 << 3;      // FR_WAITING
constexpr uint64_t kInterrupted = 1 << 5;  // FR_INTERRUPTED
constexpr uint64_t kSent = 1 << 8;         // FR_SENT

// `header`: where that of a request lies which has not been answered.
inline bool is_interrupted(const GuestMemory& memory, uint64_t header) {
  constexpr uint64_t kExactly = kHasReply | kCounted | kInterrupted | kSent;
  return header >= sizeof kExactly && memory.load<uint64_t>(header - sizeof kExactly) == kExactly;
}

}  // namespace snug::linux_request
