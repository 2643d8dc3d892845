#include "pci.h"

enum { kAddress = 0xcf8, kData = 0xcfc };

static void select(u8 slot, u16 offset) { out32(kAddress, 0x80000000u | (u32)slot << 11 | (offset & 0xfc)); }

u32 pci_read32(u8 slot, u16 offset) {
  select(slot, offset);
  return in32(kData);
}

u16 pci_read16(u8 slot, u16 offset) {
  select(slot, offset);
  return in16((u16)(kData + (offset & 2)));
}

u8 pci_read8(u8 slot, u16 offset) {
  select(slot, offset);
  return in8((u16)(kData + (offset & 3)));
}

void pci_write32(u8 slot, u16 offset, u32 value) {
  select(slot, offset);
  out32(kData, value);
}

void pci_write16(u8 slot, u16 offset, u16 value) {
  select(slot, offset);
  out16((u16)(kData + (offset & 2)), value);
}

void pci_write8(u8 slot, u16 offset, u8 value) {
  select(slot, offset);
  out8((u16)(kData + (offset & 3)), value);
}

u64 pci_bar(u8 slot, unsigned index) {
  const u16 at = (u16)(kPciBar0 + 4 * index);
  const u32 low = pci_read32(slot, at);
  u64 address = low & ~0xfu;
  if ((low & 6) == 4) address |= (u64)pci_read32(slot, (u16)(at + 4)) << 32;
  return address;
}
