// A kernel as it lies in guest memory, kept in a file that later guests map copy-on-write: loading it then
// reads, unpacks and copies nothing, and guests of one kernel share its pages on the host.
//
// The file is made and read by the same user's snug; what it says is checked all the same. One thread, before
// the guest runs. Byte order and layout are this build's: another build's file is refused.
#pragma once

#include "boot/kernel.h"
#include "vmm/base/result.h"
#include "vmm/core/guest_memory.h"

namespace snug::boot {

// Writes `kernel`, just loaded into `memory` and its virtual addresses not moved yet, to the empty file `fd`,
// with its relocations. Errors: I/O, too many pieces.
Result<void> write_prepared(int fd, const LoadedKernel& kernel, const GuestMemory& memory);

// Maps what write_prepared wrote into fresh guest memory. `fd` may be closed afterwards; the file must never
// be written to again (it may be removed). Errors: not such a file, cut short, does not fit: guest RAM is as
// fresh as before then; no room for a mapping: a part of the kernel may lie where it belongs.
// `placement` as for load_kernel(): randomise_addresses() is left to the caller.
Result<LoadedKernel> map_prepared(int fd, const GuestMemory& memory, const Placement& placement = {});

}  // namespace snug::boot
