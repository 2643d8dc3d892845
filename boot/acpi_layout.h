// The ACPI tables' fixed layouts (ACPI 6.5, 5.2; PCI Firmware 3.3, 4.1.2). Little-endian, unaligned.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "vmm/base/endian.h"

namespace snug::boot {

// 5.2.5.3
struct AcpiRsdp {
  std::array<char, 8> signature;
  uint8_t checksum;  // of the first 20 bytes
  std::array<char, 6> oem_id;
  uint8_t revision;
  le32 rsdt;
  le32 length;
  le64 xsdt;
  uint8_t extended_checksum;
  std::array<uint8_t, 3> reserved;
};
static_assert(sizeof(AcpiRsdp) == 36);

// 5.2.6
struct AcpiHeader {
  std::array<char, 4> signature;
  le32 length;
  uint8_t revision;
  uint8_t checksum;
  std::array<char, 6> oem_id;
  std::array<char, 8> oem_table_id;
  le32 oem_revision;
  std::array<char, 4> creator_id;
  le32 creator_revision;
};
static_assert(sizeof(AcpiHeader) == 36);

// 5.2.3.2, generic address structure
struct AcpiAddress {
  uint8_t space;  // 1: I/O
  uint8_t bit_width, bit_offset;
  uint8_t access_size;  // 1: byte
  le64 address;
};
static_assert(sizeof(AcpiAddress) == 12);

// 5.2.9
struct AcpiFadt {
  AcpiHeader header;
  le32 firmware_ctrl, dsdt;
  uint8_t reserved0, pm_profile;
  std::array<std::byte, 109 - 46> hardware;  // SCI, SMI, PM1, PM2, timer, GPE: absent, hardware-reduced
  le16 boot_architecture;                    // 109
  uint8_t reserved1;
  le32 flags;  // 112
  AcpiAddress reset_register;
  uint8_t reset_value;  // 128
  le16 arm_boot_architecture;
  uint8_t minor_version;  // 131
  le64 x_firmware_ctrl, x_dsdt;
  std::array<AcpiAddress, 8> x_hardware;  // 148
  AcpiAddress sleep_control, sleep_status;
  le64 hypervisor_vendor;
};
static_assert(offsetof(AcpiFadt, boot_architecture) == 109);
static_assert(offsetof(AcpiFadt, flags) == 112);
static_assert(offsetof(AcpiFadt, minor_version) == 131);
static_assert(offsetof(AcpiFadt, x_hardware) == 148);
static_assert(offsetof(AcpiFadt, sleep_control) == 244);
static_assert(sizeof(AcpiFadt) == 276);

// 5.2.12
struct AcpiMadt {
  AcpiHeader header;
  le32 lapic, flags;
};
static_assert(sizeof(AcpiMadt) == 44);

struct AcpiMadtLapic {
  uint8_t type, length, processor_uid, apic_id;
  le32 flags;
};
static_assert(sizeof(AcpiMadtLapic) == 8);

struct AcpiMadtIoapic {
  uint8_t type, length, id, reserved;
  le32 address, gsi_base;
};
static_assert(sizeof(AcpiMadtIoapic) == 12);

struct AcpiMadtLapicNmi {
  uint8_t type, length, processor_uid;
  le16 flags;
  uint8_t lint;
};
static_assert(sizeof(AcpiMadtLapicNmi) == 6);

// PCI Firmware 3.3, 4.1.2, one segment
struct AcpiMcfg {
  AcpiHeader header;
  le64 reserved;
  le64 base;
  le16 segment;
  uint8_t first_bus, last_bus;
  le32 reserved2;
};
static_assert(sizeof(AcpiMcfg) == 60);

}  // namespace snug::boot
