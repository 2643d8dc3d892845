#include "boot/zero_page.h"

#include <algorithm>
#include <cstring>

#include "vmm/core/address_map.h"

namespace snug::boot {
namespace {

constexpr uint16_t kBootFlag = 0xaa55;
constexpr uint32_t kHdrS = 0x53726448;
constexpr uint16_t kPlainVersion = 0x020f;
constexpr uint8_t kLoaderUndefined = 0xff;
constexpr uint8_t kLoadedHigh = 1 << 0;
constexpr uint8_t kKaslr = 1 << 1;  // tells the kernel to place its own areas at random as well

uint32_t low_half(uint64_t value) { return static_cast<uint32_t>(value); }
uint32_t high_half(uint64_t value) { return static_cast<uint32_t>(value >> 32); }

ZeroPageHeader make_header(const LoadedKernel& kernel) {
  ZeroPageHeader header{};
  if (kernel.setup_header) {
    std::memcpy(&header, kernel.setup_header->raw.data(), kernel.setup_header->raw_size);
  } else {
    // Linux takes a page without a version for one of the ancient protocol and looks elsewhere.
    header.boot_flag = kBootFlag;
    header.magic = kHdrS;
    header.version = kPlainVersion;
    header.cmdline_size = kernel.cmdline_max;
  }
  header.type_of_loader = kLoaderUndefined;
  header.loadflags = static_cast<uint8_t>((header.loadflags & ~kKaslr) | kLoadedHigh);
  if (kernel.randomised) header.loadflags = static_cast<uint8_t>(header.loadflags | kKaslr);
  return header;
}

}  // namespace

ZeroPage make_zero_page(const LoadedKernel& kernel, std::span<const E820Entry> memory,
                        const std::optional<InitrdPlacement>& initrd, uint64_t rsdp) {
  ZeroPage page{};
  page.header = make_header(kernel);
  page.header.cmd_line_ptr = low_half(map::kCmdline);
  page.ext_cmd_line_ptr = high_half(map::kCmdline);
  // Whatever the file had in these is not ours.
  page.header.ramdisk_image = initrd ? low_half(initrd->gpa) : 0;
  page.header.ramdisk_size = initrd ? low_half(initrd->size) : 0;
  page.ext_ramdisk_image = initrd ? high_half(initrd->gpa) : 0;
  page.ext_ramdisk_size = initrd ? high_half(initrd->size) : 0;
  page.acpi_rsdp_addr = rsdp;
  const size_t count = std::min(memory.size(), page.e820_table.size());
  for (size_t i = 0; i < count; ++i)
    page.e820_table[i] = {memory[i].gpa, memory[i].size, static_cast<uint32_t>(memory[i].type)};
  page.e820_entries = static_cast<uint8_t>(count);
  return page;
}

}  // namespace snug::boot
