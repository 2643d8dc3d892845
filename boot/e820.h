// The memory map handed to the guest's kernel (ACPI 6.5, 15: E820 types; the PVH map uses the same types).
#pragma once

#include <cstdint>
#include <vector>

#include "vmm/core/guest_memory.h"

namespace snug::boot {

enum class E820Type : uint32_t { kRam = 1, kReserved = 2, kAcpi = 3, kAcpiNvs = 4 };

struct E820Entry {
  uint64_t gpa;
  uint64_t size;  // bytes, > 0
  E820Type type;
};

// Ascending, not overlapping: RAM as `memory` has it but for the EBDA and the ACPI tables' area below 1 MiB;
// the ECAM window and the hypervisor's own pages in the hole as reserved.
std::vector<E820Entry> memory_map(const GuestMemory& memory);

}  // namespace snug::boot
