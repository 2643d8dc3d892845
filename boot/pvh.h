// hvm_start_info version 1 with its module list and memory map (Xen, public/arch-x86/hvm/start_info.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "boot/e820.h"
#include "boot/initrd.h"
#include "vmm/base/endian.h"
#include "vmm/base/result.h"
#include "vmm/core/guest_memory.h"

namespace snug::boot {

struct PvhStartInfo {
  le32 magic;    // 0x336ec578
  le32 version;  // 1
  le32 flags;
  le32 module_count;
  le64 module_list;  // gpa
  le64 cmdline;      // gpa
  le64 rsdp;         // gpa, 0 for none
  le64 memory_map;   // gpa
  le32 memory_map_entries;
  le32 reserved;
};
static_assert(offsetof(PvhStartInfo, cmdline) == 24);
static_assert(offsetof(PvhStartInfo, memory_map_entries) == 48);
static_assert(sizeof(PvhStartInfo) == 56);

struct PvhModule {
  le64 gpa, size, cmdline, reserved;
};
static_assert(sizeof(PvhModule) == 32);

struct PvhMemoryMapEntry {
  le64 gpa, size;
  le32 type, reserved;
};
static_assert(sizeof(PvhMemoryMapEntry) == 24);

constexpr uint32_t kPvhMagic = 0x336ec578;

// Writes start info, module list (the initrd, if any) and memory map to the page at map::kPvhStartInfo; the
// command line is at map::kCmdline. `rsdp`: gpa, 0 for none. Errors: more than fits the page.
Result<void> write_pvh_start_info(const GuestMemory& memory, std::span<const E820Entry> memory_map,
                                  const std::optional<InitrdPlacement>& initrd, uint64_t rsdp);

}  // namespace snug::boot
