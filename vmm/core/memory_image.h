// RAM as a file: page by page at the offset that it has in RAM, the part above the hole behind the one below
// it. Pages of zeros are holes.
//
// Thread: one, while nothing writes to RAM.
#pragma once

#include <cstdint>

#include "vmm/base/result.h"
#include "vmm/core/guest_memory.h"

namespace snug {

// Into `file`, an empty one. `pagemap`: /proc/self/pagemap of this process (or -1): pages that were never
// touched are not looked at. Returns the bytes written. Errors: of the file; of memory that other processes
// have as well.
Result<uint64_t> write_memory_image(const GuestMemory& memory, int pagemap, int file);

// In the place of RAM that is all zero, copy-on-write: nobody may write to the file any more. Errors: a file
// that is not one of so much RAM; it cannot be mapped.
Result<void> map_memory_image(const GuestMemory& memory, int file);

}  // namespace snug
