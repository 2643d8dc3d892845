// What a file system device says to the process that serves its share, and what that says to it: packets of a
// SOCK_SEQPACKET pair, with descriptors. The server works on the device's rings by itself; the device tells
// it where they are. All numbers are this machine's byte order.
//
// The device's side is taken for the guest's, and the server believes nothing of it: what makes no sense ends
// the server.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace snug::share {

constexpr size_t kQueuesMax = 9;      // the one of high priority among them
constexpr uint16_t kQueueSize = 256;  // requests that each has room for
constexpr size_t kFilesMax = 16;      // GuestMemory::kFilesMax

enum class CallKind : uint32_t {
  // A machine has been built. `argument`: bytes of its memory. Descriptors: that (GuestMemory::attach()), the
  // files that are memory beside it, one for each that has a size, and what its doorbells add to, one
  // for each queue. What was there before is over.
  kAttach = 1,
  // Its driver is ready. `argument`: the features that were negotiated. Descriptors: what interrupts, one for
  // each ring that has a size, in their order.
  kStart,
  // The guest wants to be interrupted for queue `argument` elsewhere: by that descriptor.
  kMoved,
  // The driver is gone. The answer, kStopped, comes when nothing of it is under way.
  kStop,
  // The machine is gone.
  kDetach,
  // The machine stands still: no further request is taken. The answer, kHeld, comes when nothing is under way
  // any more. Descriptor: an empty file, in which the server's state is then.
  kHold,
  // It goes on.
  kRelease,
  // In the place of kStart: the driver was ready in another machine, and goes on. Descriptors: the state of
  // the server there, as kHold had it, and those of kStart.
  kGoOn,
};

// Bytes of a server's state, at most.
constexpr size_t kStateMax = size_t{16} << 20;

struct Ring {
  uint64_t descriptors = 0;
  uint64_t available = 0;
  uint64_t used = 0;
  uint64_t size = 0;  // entries; 0: the queue is not in use
};

// A file that the guest has as memory (GuestMemory::add_file()).
struct MemoryFile {
  uint64_t gpa = 0;
  uint64_t size = 0;  // 0: there is none
  uint64_t bytes = 0;
  uint64_t writable = 0;  // 1 or 0
};

struct Call {
  uint32_t kind = 0;
  uint32_t generation = 0;  // of the machine; answers have it too
  uint64_t argument = 0;
  std::array<Ring, kQueuesMax> rings;
  std::array<MemoryFile, kFilesMax> files;
};
static_assert(std::is_trivially_copyable_v<Call>);

enum class NewsKind : uint32_t {
  kStopped = 1,
  kBroken,       // the driver has broken the rules; text behind the head: how
  kHeld,         // text behind the head: why there is no state to be had; none: it is in the file
  kHeldMounted,  // as kHeld, with a state, of a share that the guest has mounted
};

struct News {
  uint32_t kind = 0;
  uint32_t generation = 0;
};
constexpr size_t kTextMax = 512;  // bytes behind a head

}  // namespace snug::share
