#include "boot/e820.h"

#include "vmm/core/address_map.h"

namespace snug::boot {

std::vector<E820Entry> memory_map(const GuestMemory& memory) {
  std::vector<E820Entry> entries;
  const auto add = [&entries](uint64_t start, uint64_t end, E820Type type) {
    if (start < end) entries.push_back({start, end - start, type});
  };
  add(0, map::kLowRamEnd, E820Type::kRam);
  add(map::kLowRamEnd, 0xa0000, E820Type::kReserved);
  // Firmware area, as on a PC: the RSDP and the tables lie here, and little would be won by reclaiming it.
  add(map::kAcpiTables, map::kBiosEnd, E820Type::kReserved);
  for (const GuestMemory::Region& region : memory.regions())
    if (region.gpa == 0) add(map::kHighRamStart, region.size, E820Type::kRam);
  // PCI Firmware 3.3, 4.1.2: ECAM must be reserved; Linux uses it early only when it is here.
  add(map::kEcam, map::kEcam + map::kEcamSize, E820Type::kReserved);
  add(map::kIdentityMapPage, map::kTssPages + 3 * 4096, E820Type::kReserved);
  for (const GuestMemory::Region& region : memory.regions())
    if (region.gpa != 0) add(region.gpa, region.gpa + region.size, E820Type::kRam);
  return entries;
}

}  // namespace snug::boot
