#include "boot/pvh.h"

#include "vmm/core/address_map.h"

namespace snug::boot {
namespace {

constexpr uint64_t kModuleList = map::kPvhStartInfo + 0x40;
constexpr uint64_t kMemoryMap = map::kPvhStartInfo + 0x80;
constexpr size_t kMemoryMapMax = (0x1000 - 0x80) / sizeof(PvhMemoryMapEntry);

}  // namespace

Result<void> write_pvh_start_info(const GuestMemory& memory, std::span<const E820Entry> memory_map,
                                  const std::optional<InitrdPlacement>& initrd, uint64_t rsdp) {
  if (memory_map.size() > kMemoryMapMax) return fail("a memory map of {} entries", memory_map.size());
  PvhStartInfo info{};
  info.magic = kPvhMagic;
  info.version = 1;
  info.cmdline = map::kCmdline;
  info.rsdp = rsdp;
  info.memory_map = kMemoryMap;
  info.memory_map_entries = static_cast<uint32_t>(memory_map.size());
  bool written = true;
  if (initrd) {
    info.module_count = 1;
    info.module_list = kModuleList;
    written = memory.store(kModuleList, PvhModule{initrd->gpa, initrd->size, 0, 0});
  }
  uint64_t at = kMemoryMap;
  for (const E820Entry& entry : memory_map) {
    written = written && memory.store(at, PvhMemoryMapEntry{entry.gpa, entry.size,
                                                            static_cast<uint32_t>(entry.type), 0});
    at += sizeof(PvhMemoryMapEntry);
  }
  written = written && memory.store(map::kPvhStartInfo, info);
  if (!written) return fail("no guest RAM at {:#x}", map::kPvhStartInfo);
  return {};
}

}  // namespace snug::boot
