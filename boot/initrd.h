// Initrds in guest memory: one or several archives, one behind the other, each padded to 4 bytes, which Linux
// unpacks in order (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
//
// The files are hostile, their content is the guest's business. One thread, before the guest runs.
#pragma once

#include <cstdint>
#include <span>

#include "boot/kernel.h"
#include "vmm/base/result.h"
#include "vmm/core/guest_memory.h"

namespace snug::boot {

struct InitrdPlacement {
  uint64_t gpa;   // page-aligned
  uint64_t size;  // bytes, all archives and the padding between them
};

// `fds`: at least one; regular files are read from their start, pipes and the like to their end. Borrowed.
// Placed as high as the kernel and RAM below 4 GiB allow, above the kernel's end. Errors: an empty file, not
// an archive (the message says what it seems to be and which one), I/O, a file that shrinks meanwhile, does
// not fit (the hint says how much memory would do).
Result<InitrdPlacement> load_initrds(std::span<const int> fds, const GuestMemory& memory,
                                     const LoadedKernel& kernel);

}  // namespace snug::boot
