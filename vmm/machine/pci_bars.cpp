#include "vmm/machine/pci_bars.h"

#include "vmm/base/log.h"

namespace snug {

PciBars::~PciBars() {
  for (Slot& slot : slots_)
    if (slot.device != nullptr) unmap(slot);
}

Result<void> PciBars::add(uint8_t slot_index, std::string name, Synced<VirtioPci>& device) {
  std::lock_guard lock(mutex_);
  Slot& slot = slots_[slot_index];
  const PciBar bar = device.lock()->config().bar(VirtioPci::kBar);
  notes_[slot_index] = {bar.address, bar.enabled};
  slot = {&device, std::move(name), notes_[slot_index], std::nullopt};
  return map(slot, bar.address);
}

void PciBars::bar_changed(uint8_t slot, const PciBar&, const PciBar& now) {
  std::lock_guard lock(notes_mutex_);
  notes_[slot] = {now.address, now.enabled};
  changed_.store(true, std::memory_order_release);
}

// A guest that sizes a BAR switches it off and on again with nothing moved: what is switched off keeps its
// place until somebody wants it.
void PciBars::apply_changes() {
  std::lock_guard lock(mutex_);
  {
    std::lock_guard notes_lock(notes_mutex_);
    changed_ = false;
    for (size_t i = 0; i < slots_.size(); ++i) slots_[i].note = notes_[i];
  }
  for (Slot& slot : slots_)
    if (slot.note.enabled && slot.mapped && *slot.mapped != slot.note.address) unmap(slot);
  for (Slot& slot : slots_) {
    if (slot.device == nullptr || !slot.note.enabled || slot.mapped) continue;
    make_room(slot.note.address);
    if (auto mapped = map(slot, slot.note.address); !mapped)
      log_debug("{}: the guest has put its BAR where it cannot be: {}", slot.name, mapped.error().text());
  }
}

void PciBars::make_room(uint64_t address) {
  for (Slot& slot : slots_)
    if (slot.mapped && !slot.note.enabled && *slot.mapped < address + VirtioPci::kBarSize &&
        address < *slot.mapped + VirtioPci::kBarSize)
      unmap(slot);
}

Result<void> PciBars::map(Slot& slot, uint64_t address) {
  SNUG_TRY(mmio_.add({address, VirtioPci::kBarSize}, slot.name, *slot.device));
  if (auto bound = slot.device->lock()->map_doorbells(address); !bound) {
    mmio_.remove(address);
    return bound;
  }
  slot.mapped = address;
  return {};
}

void PciBars::unmap(Slot& slot) {
  if (!slot.mapped) return;
  mmio_.remove(*slot.mapped);
  slot.device->lock()->unmap_doorbells();
  slot.mapped.reset();
}

}  // namespace snug
