// Where everything lies in a guest: the one place that knows. Guest-physical addresses and I/O ports.
#pragma once

#include <cstdint>

#include "vmm/base/checked.h"

namespace snug::map {

// --- guest-physical memory -------------------------------------------------------------------------
// RAM starts at 0 and runs to at most kHoleStart; what is left continues at kHoleEnd (4 GiB). The hole
// holds everything a 32-bit BAR or a fixed address needs.
constexpr uint64_t kHoleStart = 3 * kGiB;
constexpr uint64_t kHoleEnd = 4 * kGiB;

// First MiB: boot structures, all below the EBDA that PCs end their low memory with.
constexpr uint64_t kBootGdt = 0x500;          // one page with the zero page behind it is plenty
constexpr uint64_t kPvhStartInfo = 0x6000;    // hvm_start_info, module list, memory map: one page
constexpr uint64_t kZeroPage = 0x7000;        // boot_params, 4 KiB
constexpr uint64_t kBootStackTop = 0x8ff0;    // grows down from here
constexpr uint64_t kBootPageTables = 0x9000;  // PML4, PDPT, 4 PDs: 6 pages, identity map of 4 GiB
constexpr uint64_t kCmdline = 0x20000;        // NUL-terminated; kCmdlineMax bytes reserved
constexpr uint64_t kCmdlineMax = 0x10000;
constexpr uint64_t kLowRamEnd = 0x9fc00;   // e820 RAM ends here; EBDA and VGA hole follow
constexpr uint64_t kAcpiTables = 0xe0000;  // RSDP first (ACPI 6.5 5.2.5.1 search area), tables behind it
constexpr uint64_t kAcpiTablesEnd = 0xff000;
constexpr uint64_t kGenerationId =
    kAcpiTablesEnd;                         // 16 bytes (Virtual Machine Generation ID, Microsoft 2012)
constexpr uint64_t kResetVector = 0xffff0;  // F000:FFF0, where old software jumps to reset a PC
constexpr uint64_t kBiosEnd = 0x100000;
constexpr uint64_t kHighRamStart = 0x100000;

// The hole.
constexpr uint64_t kPciMmio32 = 0xc0000000;  // window for 32-bit BARs: 512 MiB
constexpr uint64_t kPciMmio32End = 0xe0000000;
constexpr uint64_t kEcam = 0xe0000000;  // bus 0 only: 1 MiB
constexpr uint64_t kEcamSize = kMiB;
constexpr uint64_t kIoapic = 0xfec00000;
constexpr uint64_t kLapic = 0xfee00000;
constexpr uint64_t kIdentityMapPage = 0xfffbc000;  // KVM_SET_IDENTITY_MAP_ADDR: 1 page
constexpr uint64_t kTssPages = 0xfffbd000;         // KVM_SET_TSS_ADDR: 3 pages

// Files that are memory of the guest (virtio-pmem): above all RAM, each at a whole section of memory of its
// kernel, behind some room: Linux's block layer takes pages side by side for parts of one thing.
constexpr uint64_t kPmemAlignment = 128 * kMiB;
constexpr uint64_t kPmemGap = 2 * kMiB;

// 64-bit BARs: a window above all RAM and files, placed by the machine builder (size below).
constexpr uint64_t kPciMmio64Size = 16 * kGiB;

// --- I/O ports --------------------------------------------------------------------------------------
constexpr uint16_t kPortI8042 = 0x60;  // 0x60 data, 0x64 command; registered as 0x60 and 0x64, one byte each
constexpr uint16_t kPortRtc = 0x70;    // index, data: 2 ports
constexpr uint16_t kPortPostCode = 0x80;
constexpr uint16_t kPortDebugExit = 0xf4;    // 4 ports
constexpr uint16_t kPortGuestStatus = 0xf8;  // 1 port: exit status to report at power-off
constexpr uint16_t kPortSerial = 0x3f8;      // 8 ports
constexpr uint16_t kPortPvpanic = 0x505;     // 1 port
constexpr uint16_t kPortAcpi = 0x600;        // 16 ports, devices/acpi: offsets below
constexpr uint16_t kPortPciConfig = 0xcf8;   // address at 0xcf8, data at 0xcfc: 8 ports

constexpr uint16_t kAcpiSleepControl = kPortAcpi + 0;
constexpr uint16_t kAcpiSleepStatus = kPortAcpi + 1;
constexpr uint16_t kAcpiReset = kPortAcpi + 2;
constexpr uint16_t kAcpiEvents = kPortAcpi + 4;  // pending events, write 1 to clear; GED reads it
constexpr uint8_t kAcpiResetValue = 0x01;
constexpr uint8_t kAcpiSleepTypeS5 = 5;  // SLP_TYP value of \_S5
constexpr uint8_t kAcpiEventPowerButton = 0x01;
constexpr uint8_t kAcpiEventGeneration = 0x02;

// --- interrupts (GSI) -------------------------------------------------------------------------------
constexpr uint32_t kGsiSerial = 4;
constexpr uint32_t kGsiAcpi = 9;      // generic event device (ACPI 6.5 5.6.9); level, active high
constexpr uint8_t kGsiPciFirst = 16;  // INTA..INTD of the root bus: 16..19; level, active high
constexpr uint32_t kIoapicPins = 24;

}  // namespace snug::map
