// boot_params, the "zero page" (Linux, Documentation/x86/zero-page.rst and boot.rst). Only what snug fills in
// has a name here; the rest stays zero, which for the screen means "there is none".
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "boot/e820.h"
#include "boot/initrd.h"
#include "boot/kernel.h"
#include "vmm/base/endian.h"

namespace snug::boot {

struct ZeroPageE820 {
  le64 gpa, size;
  le32 type;
};
static_assert(sizeof(ZeroPageE820) == 20);

// From 0x1f1.
struct ZeroPageHeader {
  uint8_t setup_sects;
  le16 root_flags;
  le32 syssize;
  le16 ram_size, vid_mode, root_dev;
  le16 boot_flag;  // 0x1fe
  le16 jump;
  le32 magic;    // 0x202 "HdrS"
  le16 version;  // 0x206
  le32 realmode_switch;
  le16 start_sys_segment, kernel_version;
  uint8_t type_of_loader;  // 0x210
  uint8_t loadflags;
  le16 setup_move_size;
  le32 code32_start;
  le32 ramdisk_image;  // 0x218
  le32 ramdisk_size;
  le32 bootsect_kludge;
  le16 heap_end_ptr;
  uint8_t ext_loader_version, ext_loader_type;
  le32 cmd_line_ptr;  // 0x228
  le32 initrd_addr_max;
  le32 kernel_alignment;  // 0x230
  uint8_t relocatable_kernel, min_alignment;
  le16 xloadflags;
  le32 cmdline_size;  // 0x238
  std::array<std::byte, kSetupHeaderMax - 75> rest;
};
static_assert(sizeof(ZeroPageHeader) == kSetupHeaderMax);

struct ZeroPage {
  std::array<std::byte, 0x70> screen_and_tables;
  le64 acpi_rsdp_addr;  // 0x070
  std::array<std::byte, 0x0c0 - 0x078> disks;
  le32 ext_ramdisk_image;  // 0x0c0
  le32 ext_ramdisk_size;
  le32 ext_cmd_line_ptr;
  std::array<std::byte, 0x1e8 - 0x0cc> firmware;
  uint8_t e820_entries;  // 0x1e8
  std::array<std::byte, 0x1ef - 0x1e9> keyboard_and_edd;
  uint8_t sentinel;  // must be 0
  uint8_t padding;
  ZeroPageHeader header;  // 0x1f1
  std::array<std::byte, 0x2d0 - 0x290> edd_signatures;
  std::array<ZeroPageE820, 128> e820_table;  // 0x2d0
  std::array<std::byte, 0x1000 - 0xcd0> edd;
};
static_assert(offsetof(ZeroPage, acpi_rsdp_addr) == 0x070);
static_assert(offsetof(ZeroPage, ext_ramdisk_image) == 0x0c0);
static_assert(offsetof(ZeroPage, ext_cmd_line_ptr) == 0x0c8);
static_assert(offsetof(ZeroPage, e820_entries) == 0x1e8);
static_assert(offsetof(ZeroPage, sentinel) == 0x1ef);
static_assert(offsetof(ZeroPage, header) == kSetupHeaderOffset);
static_assert(offsetof(ZeroPage, header.type_of_loader) == 0x210);
static_assert(offsetof(ZeroPage, header.ramdisk_image) == 0x218);
static_assert(offsetof(ZeroPage, header.cmd_line_ptr) == 0x228);
static_assert(offsetof(ZeroPage, header.cmdline_size) == 0x238);
static_assert(offsetof(ZeroPage, e820_table) == 0x2d0);
static_assert(sizeof(ZeroPage) == 4096);

// The page for a kernel entered by the 64-bit protocol: its own setup header (a plain one for an ELF kernel),
// memory map, command line at map::kCmdline, initrd. `rsdp`: gpa, 0 for none. At most 128 entries of `memory`
// count.
ZeroPage make_zero_page(const LoadedKernel& kernel, std::span<const E820Entry> memory,
                        const std::optional<InitrdPlacement>& initrd, uint64_t rsdp);

}  // namespace snug::boot
