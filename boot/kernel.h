// Loads a kernel into guest memory: bzImage (unpacked on the host and entered at the ELF inside, or through
// its own 64-bit entry) and ELF, by the 64-bit Linux boot protocol or by PVH.
//
// The file is hostile. One thread, before the guest runs; nothing is kept between calls.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "boot/bzimage.h"
#include "boot/kaslr.h"
#include "vmm/base/result.h"
#include "vmm/core/guest_memory.h"

namespace snug::boot {

enum class EntryProtocol {
  kLinux64,  // Linux boot protocol, "64-bit Boot Protocol"
  kPvh,      // Xen's docs/misc/pvh: 32-bit flat protected mode, hvm_start_info in ebx
};

struct LoadedKernel {
  EntryProtocol protocol = EntryProtocol::kLinux64;
  uint64_t entry = 0;  // gpa
  // The gpa range the kernel occupies or may use before it looks at the memory map: bss and init_size
  // included.
  uint64_t start = 0;
  uint64_t end = 0;
  // Where bytes of the file lie, ascending by gpa, not overlapping; the rest of the range is zero.
  struct Extent {
    uint64_t gpa;
    uint64_t size;
  };
  std::vector<Extent> extents;
  std::string format;                       // for people: "bzImage, LZ4 payload, entered at the ELF inside"
  bool is_linux = false;                    // a bzImage, or an ELF whose notes say so
  std::optional<SetupHeader> setup_header;  // of a bzImage
  uint64_t initrd_max = 0;                  // highest gpa that an initrd's last byte may have
  uint32_t cmdline_max = 0;                 // bytes without the NUL
  uint64_t moved_by = 0;                    // gpas of this kernel less those it was linked to
  bool unpacks_itself = false;              // entered at a bzImage's own loader, which may move it further
  bool randomised = false;                  // its virtual addresses too are moved
  std::optional<Relocations> relocations;   // not applied so far; see randomise_addresses()
};

// `fd`: a regular file (or memfd), borrowed; its position is not used. `memory` must be fresh (all zero):
// what a kernel wants zeroed is not touched. Nothing is loaded below 1 MiB.
//
// Errors: not a kernel (the message says what the file seems to be), not for x86-64, broken, cut short, I/O,
// or too large for the guest (the hint says how much memory would do). Guest RAM may have been written to
// then.
Result<LoadedKernel> load_kernel(int fd, const GuestMemory& memory, const Placement& placement = {});

// Second half of `placement`: moves the virtual addresses of a kernel that brought relocations, and lets go
// of these. Errors: relocations that lie outside of the kernel.
Result<void> randomise_addresses(const GuestMemory& memory, LoadedKernel& kernel, const Placement& placement);

// The step in which `kernel` may be moved, 0 for one that stays where it was linked to; the end of the RAM
// that it and initrds may use.
uint64_t placement_step(const SetupHeader& header);
uint64_t placement_limit(const GuestMemory& memory, uint64_t initrd_max);

}  // namespace snug::boot
