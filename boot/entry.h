// The last step before the first vCPU runs: boot structures in the first MiB, and the registers.
#pragma once

#include <optional>
#include <string_view>

#include "boot/initrd.h"
#include "boot/kernel.h"
#include "vmm/base/result.h"
#include "vmm/core/cpu_state.h"
#include "vmm/core/guest_memory.h"

namespace snug::boot {

// Writes the zero page or the PVH start info, the command line, a GDT and (64-bit protocol) page tables:
// identity map of the first 4 GiB, 2 MiB pages, writable, user bit set (micro-guests drop to CPL 3 on them).
// The kernel is told of an RSDP when the ACPI tables are in `memory` already: write them first.
//
// Selectors in the GDT: 0x10 code, 0x18 data, 0x20 task state (base 0: a guest that uses it brings its own).
// One thread, before the guest runs. Errors: the command line (see check_cmdline).
Result<CpuState> prepare_entry(const GuestMemory& memory, const LoadedKernel& kernel,
                               const std::optional<InitrdPlacement>& initrd, std::string_view cmdline);

}  // namespace snug::boot
