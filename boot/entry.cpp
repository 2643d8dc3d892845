#include "boot/entry.h"

#include <array>
#include <string>
#include <vector>

#include "boot/cmdline.h"
#include "boot/e820.h"
#include "boot/pvh.h"
#include "boot/zero_page.h"
#include "vmm/core/address_map.h"

namespace snug::boot {
namespace {

// Intel SDM vol. 3, 2.5 and 2.2.1.
constexpr uint64_t kCr0Pe = 1u << 0;
constexpr uint64_t kCr0Mp = 1u << 1;
constexpr uint64_t kCr0Et = 1u << 4;
constexpr uint64_t kCr0Ne = 1u << 5;
constexpr uint64_t kCr0Wp = 1u << 16;
constexpr uint64_t kCr0Pg = 1u << 31;
constexpr uint64_t kCr4Pae = 1u << 5;
constexpr uint64_t kEferLme = 1u << 8;
constexpr uint64_t kEferLma = 1u << 10;

// type_attributes of SegmentState, Intel SDM vol. 3, 3.4.5.
constexpr uint16_t kCode64 = 0xa09b;  // G, L, present, execute/read, accessed
constexpr uint16_t kCode32 = 0xc09b;  // G, D
constexpr uint16_t kData = 0xc093;    // G, B, read/write
constexpr uint16_t kTask = 0x008b;    // busy TSS: 64-bit in long mode, else 32-bit

constexpr uint16_t kCodeSelector = 0x10;  // __BOOT_CS of the boot protocol
constexpr uint16_t kDataSelector = 0x18;  // __BOOT_DS
constexpr uint16_t kTaskSelector = 0x20;
constexpr uint32_t kTaskLimit = 0x67;

constexpr uint64_t kPagePresent = 1u << 0;
constexpr uint64_t kPageWritable = 1u << 1;
constexpr uint64_t kPageUser = 1u << 2;
constexpr uint64_t kPageLarge = 1u << 7;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kLargePage = 2 * kMiB;
constexpr size_t kTableEntries = 512;
constexpr uint64_t kIdentityMapGib = 4;

// Page granularity; base 0.
constexpr uint64_t flat_descriptor(uint16_t type_attributes) {
  return 0x0000ffff | (uint64_t{0xf} << 48) | (uint64_t{type_attributes} << 40);
}

// Six 8-byte descriptors; the 64-bit TSS takes two.
Result<void> write_gdt(const GuestMemory& memory, uint16_t code_attributes, CpuState& state) {
  const std::array<le64, 6> gdt{
      0, 0, flat_descriptor(code_attributes), flat_descriptor(kData), kTaskLimit | (uint64_t{kTask} << 40),
      0};
  if (!memory.store(map::kBootGdt, gdt)) return fail("no guest RAM at {:#x}", map::kBootGdt);
  state.gdt_base = map::kBootGdt;
  state.gdt_limit = sizeof gdt - 1;
  state.code = {kCodeSelector, 0, 0xffffffff, code_attributes};
  state.data = {kDataSelector, 0, 0xffffffff, kData};
  state.task = {kTaskSelector, 0, kTaskLimit, kTask};
  return {};
}

// PML4, PDPT, then one page directory per GiB, back to back (Intel SDM vol. 3, 4.5).
Result<void> write_page_tables(const GuestMemory& memory) {
  using Table = std::array<le64, kTableEntries>;
  constexpr uint64_t kFlags = kPagePresent | kPageWritable | kPageUser;
  constexpr uint64_t kPdpt = map::kBootPageTables + kPage;
  constexpr uint64_t kDirectories = kPdpt + kPage;
  std::array<Table, 2 + kIdentityMapGib> tables{};
  tables[0][0] = kPdpt | kFlags;
  for (size_t gib = 0; gib < kIdentityMapGib; ++gib) {
    tables[1][gib] = (kDirectories + gib * kPage) | kFlags;
    for (size_t i = 0; i < kTableEntries; ++i)
      tables[2 + gib][i] = (gib * kTableEntries + i) * kLargePage | kFlags | kPageLarge;
  }
  if (!memory.store(map::kBootPageTables, tables)) return fail("no guest RAM at {:#x}", map::kBootPageTables);
  return {};
}

Result<void> write_cmdline(const GuestMemory& memory, std::string_view cmdline) {
  const std::string terminated(cmdline);
  const std::span<const char> bytes(terminated.c_str(), terminated.size() + 1);
  if (bytes.size() > map::kCmdlineMax || !memory.write(map::kCmdline, std::as_bytes(bytes)))
    return fail("the kernel command line does not fit into its {} bytes", map::kCmdlineMax);
  return {};
}

uint64_t find_rsdp(const GuestMemory& memory) {
  const auto signature = memory.load<std::array<char, 8>>(map::kAcpiTables);
  return signature && std::string_view(signature->data(), signature->size()) == "RSD PTR " ? map::kAcpiTables
                                                                                           : 0;
}

}  // namespace

Result<CpuState> prepare_entry(const GuestMemory& memory, const LoadedKernel& kernel,
                               const std::optional<InitrdPlacement>& initrd, std::string_view cmdline) {
  SNUG_TRY(check_cmdline(cmdline, kernel.cmdline_max));
  SNUG_TRY(write_cmdline(memory, cmdline));
  const std::vector<E820Entry> map = memory_map(memory);
  const uint64_t rsdp = find_rsdp(memory);
  CpuState state;
  state.rip = kernel.entry;
  state.rsp = map::kBootStackTop;
  if (kernel.protocol == EntryProtocol::kPvh) {
    SNUG_TRY(write_pvh_start_info(memory, map, initrd, rsdp));
    SNUG_TRY(write_gdt(memory, kCode32, state));
    state.rbx = map::kPvhStartInfo;
    state.cr0 = kCr0Pe | kCr0Et;
    return state;
  }
  if (!memory.store(map::kZeroPage, make_zero_page(kernel, map, initrd, rsdp)))
    return fail("no guest RAM at {:#x}", map::kZeroPage);
  SNUG_TRY(write_gdt(memory, kCode64, state));
  SNUG_TRY(write_page_tables(memory));
  state.rsi = map::kZeroPage;
  state.cr0 = kCr0Pe | kCr0Mp | kCr0Et | kCr0Ne | kCr0Wp | kCr0Pg;
  state.cr3 = map::kBootPageTables;
  state.cr4 = kCr4Pae;
  state.efer = kEferLme | kEferLma;
  return state;
}

}  // namespace snug::boot
