// PCI configuration space of bus 0, by configuration mechanism #1 and by ECAM.
#pragma once

#include "guest.h"

enum { kSlots = 32 };
// ECAM, where snug has it.
#define ECAM 0xe0000000ull

enum {
  kPciVendor = 0x00,
  kPciDevice = 0x02,
  kPciCommand = 0x04,
  kPciStatus = 0x06,
  kPciBar0 = 0x10,
  kPciCapabilities = 0x34,
  kPciMemory = 2,       // command: memory decoding
  kPciBusMaster = 4,    // command
  kPciIntxOff = 0x400,  // command
};

u32 pci_read32(u8 slot, u16 offset);
u16 pci_read16(u8 slot, u16 offset);
u8 pci_read8(u8 slot, u16 offset);
void pci_write32(u8 slot, u16 offset, u32 value);
void pci_write16(u8 slot, u16 offset, u16 value);
void pci_write8(u8 slot, u16 offset, u8 value);

static inline u64 ecam(u8 slot, u16 offset) { return ECAM + ((u64)slot << 15) + offset; }

// The address in BAR `index`, 64-bit ones included.
u64 pci_bar(u8 slot, unsigned index);
