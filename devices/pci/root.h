// The PCI root complex: bus 0 with up to 32 devices of one function each, the host bridge at 00:00.0.
// Reached through the windows of windows.h.
//
// Owner: the machine, as Synced<PciRoot>, since two windows lead here. Lock order: bus entry (window), root
// complex, device.
// Thread: add() during set-up or with the world stopped, the rest on vCPU threads.
// The guest controls addresses, widths and values of every access.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>

#include "devices/pci/device.h"
#include "vmm/base/result.h"
#include "vmm/base/synced.h"

namespace snug {

// Hears of BARs that the guest has moved or switched, so that the machine can move what is behind them, and
// of devices whose configuration space can be read as memory from now on, or no longer. Called on vCPU
// threads with locks of buses and devices held: must only post. What it has to cope with: see
// PciDevice::bar_changed. A guest that sizes a BAR switches decoding off and on again around it, with nothing
// moved in between.
class PciBarListener {
 public:
  virtual ~PciBarListener() = default;
  virtual void bar_changed(uint8_t slot, const PciBar& before, const PciBar& now) = 0;
  virtual void config_is_memory(uint8_t slot, bool is_memory) = 0;
};

class PciRoot {
 public:
  static constexpr size_t kSlots = 32;
  static constexpr uint64_t kEcamSize = 1 << 20;  // one bus: PCI Express 6.0, 7.2.2

  // nullptr: BARs stay where the machine put them, whatever the guest writes.
  explicit PciRoot(PciBarListener* listener = nullptr);

  // A device as function 0 of a slot, 1..31 (0 is the host bridge). It must outlive the root complex.
  // Errors: no such slot, the slot is taken.
  template <class Device>
  Result<void> add(uint8_t slot, Synced<Device>& device) {
    return add_slot(slot, {&device.unguarded(), &device.mutex()});
  }

  // Where a slot's configuration space is in ECAM.
  static constexpr uint64_t ecam_offset(uint8_t slot) { return uint64_t{slot} << 15; }
  // The host bridge's configuration space, for being read as memory.
  const ConfigSpace& host_bridge() { return host_bridge_.unguarded().config(); }

  // Configuration accesses, anywhere in ECAM: bits 12 and up are device and function, the rest the register
  // (PCI Express 6.0, 7.2.2). An access may have any length and cross registers and functions: it is taken
  // dword by dword. Functions that aren't there read as all ones.
  void read(uint64_t ecam_offset, std::span<std::byte> data);
  void write(uint64_t ecam_offset, std::span<const std::byte> data);

  // For snapshots: the configuration spaces of all that is there. restore() tells the listener of BARs as a
  // guest's writes would, and devices of nothing else: what follows from the registers they restore
  // themselves.
  void save(SectionWriter& out) const;
  void restore(SectionReader& in);

 private:
  struct Slot {
    PciDevice* device = nullptr;
    std::mutex* mutex = nullptr;
  };

  Result<void> add_slot(uint8_t slot, Slot entry);
  // nullptr when there is no such function.
  const Slot* function_at(uint64_t ecam_offset) const;
  void write_register(uint8_t slot_index, uint16_t offset, std::span<const std::byte> data);
  void restore_slot(uint8_t slot_index, SectionReader& in);
  void write_device(uint8_t slot_index, uint16_t offset, std::span<const std::byte> data);  // its lock held

  PciBarListener* listener_;
  Synced<PciDevice> host_bridge_;
  std::array<Slot, kSlots> slots_{};
};

}  // namespace snug
