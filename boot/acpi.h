// The guest's ACPI tables: hardware-reduced ACPI 6.5, by which guests find CPUs, PCI, power-off and reset.
//
// One thread, before the guest runs; deterministic: the same config gives the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/core/address_map.h"
#include "vmm/core/guest_memory.h"

namespace snug::boot {

struct AcpiConfig {
  uint32_t cpus = 1;          // 1..kAcpiCpusMax; APIC id == processor UID == vCPU index
  uint64_t mmio64_start = 0;  // window for 64-bit BARs: gpa and bytes, 0 bytes for none
  uint64_t mmio64_size = 0;
  uint16_t pci_segment = 0;
  uint32_t pci_slots = 32;  // slots 0..pci_slots-1 get interrupt routes; 1..32
  bool serial = true;       // COM1 at map::kPortSerial
  bool rtc = true;          // CMOS RTC at map::kPortRtc
  bool pvpanic = false;     // QEMU's pvpanic at map::kPortPvpanic
};

// APIC ids from 255 on would need x2APIC entries.
constexpr uint32_t kAcpiCpusMax = 255;

// The GSI to which the tables route a slot's interrupt pin (0: INTA .. 3: INTD).
constexpr uint32_t pci_pin_gsi(uint32_t pin) { return map::kGsiPciFirst + pin; }

// Everything from the RSDP on, with addresses for being placed at map::kAcpiTables: RSDP, XSDT, FADT, MADT,
// MCFG, DSDT. Errors: a config outside its ranges, tables larger than their area.
Result<std::vector<std::byte>> build_acpi_tables(const AcpiConfig& config);

// Copies the tables to map::kAcpiTables. Before prepare_entry, which passes them on.
Result<void> write_acpi_tables(const GuestMemory& memory, std::span<const std::byte> tables);

}  // namespace snug::boot
