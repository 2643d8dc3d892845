// Where a device's BAR is, whether it is there at all, and the window into it that lies in configuration
// space.
#pragma once

#include "hostile.h"

enum { kBarBytes = 0x8000 };
// A place for a BAR where nobody is, nor behind it.
#define FREE_PLACE 0xd0000000ull

static inline void set_bar(const Device* device, u64 address) {
  pci_write32(device->slot, kPciBar0, (u32)address);
}

static inline void move_to(Device* device, u64 address) {
  set_bar(device, address);
  use_bar_at(device, address);
}

static inline void set_command(const Device* device, u16 value) {
  pci_write16(device->slot, kPciCommand, value);
}

static inline bool is_here(const Device* device) { return virtio_status(device) != 0xff; }

// 4.1.4.9: what an access to window_data() goes to. Length 0: to nothing.
static inline void set_window(const Device* device, u8 bar, u32 offset, u32 length) {
  pci_write8(device->slot, (u16)(device->access + 4), bar);
  pci_write32(device->slot, (u16)(device->access + 8), offset);
  pci_write32(device->slot, (u16)(device->access + 12), length);
}

static inline u16 window_data(const Device* device) { return (u16)(device->access + 16); }
