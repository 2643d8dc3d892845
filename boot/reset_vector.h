// What a jump to the PC's reset vector finds: a few instructions that ask for a reset through the ACPI
// register. Linux falls back on that jump (reboot type BOOT_BIOS) where hardware-reduced ACPI makes it expect
// EFI.
#pragma once

#include "vmm/base/result.h"
#include "vmm/core/guest_memory.h"

namespace snug::boot {

// Writes the code at map::kResetVector. One thread, before the guest runs.
Result<void> write_reset_vector(const GuestMemory& memory);

}  // namespace snug::boot
