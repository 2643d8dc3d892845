// Where the BARs of virtio devices are: keeps the MMIO bus, the doorbells and the pages that are read as
// memory where the guest has put them. So too with the devices' configuration space in ECAM, which stays in
// its place.
//
// Thread: add() during set-up; bar_changed() on vCPU threads with locks held, where it only takes a note;
// apply() on vCPU threads between two accesses, so that the guest's next one meets the new place.
#pragma once

#include <array>
#include <atomic>
#include <mutex>
#include <optional>
#include <string>

#include "devices/pci/root.h"
#include "devices/virtio/pci.h"
#include "vmm/core/bus.h"
#include "vmm/core/page_binder.h"

namespace snug {

class PciBars final : public PciBarListener {
 public:
  PciBars(Bus& mmio, PageBinder& pages) : mmio_(mmio), pages_(pages) {}
  ~PciBars() override;

  // It must outlive this.
  Result<void> add_host_bridge(const ConfigSpace& config);
  // A device whose BAR is placed already. It must outlive this.
  Result<void> add(uint8_t slot, std::string name, Synced<VirtioPci>& device);

  void bar_changed(uint8_t slot, const PciBar& before, const PciBar& now) override;
  void config_is_memory(uint8_t slot, bool is_memory) override;
  // Does what bar_changed() has noted. A place that is taken is left to who has it: the device cannot be
  // reached until the guest moves one of the two.
  void apply() {
    if (changed_.load(std::memory_order_acquire)) apply_changes();
  }

 private:
  // What the guest wants.
  struct Note {
    uint64_t address = 0;
    bool enabled = false;
    bool config_is_memory = true;
  };
  struct Slot {
    Synced<VirtioPci>* device = nullptr;
    std::string name;
    Note note;
    std::optional<uint64_t> mapped;  // where it can be reached now
    bool config_shown = false;       // as memory
  };

  void apply_changes();
  Result<void> map(Slot& slot, uint64_t address);
  void unmap(Slot& slot);
  void show_config(uint8_t slot_index);
  Result<void> defer_inert_writes(uint8_t slot_index, const ConfigSpace& config);
  void make_room(uint64_t address);

  Bus& mmio_;
  PageBinder& pages_;
  std::atomic<bool> changed_ = false;
  std::mutex notes_mutex_;  // taken with a device's lock held, and nothing else after it
  std::array<Note, PciRoot::kSlots> notes_;
  std::mutex mutex_;  // guards slots_; taken before the locks of buses and devices
  std::array<Slot, PciRoot::kSlots> slots_;
};

}  // namespace snug
