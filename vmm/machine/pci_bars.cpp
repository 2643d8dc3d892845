#include "vmm/machine/pci_bars.h"

#include "vmm/base/log.h"
#include "vmm/core/address_map.h"

namespace snug {
namespace {

uint64_t config_address(uint8_t slot_index) { return map::kEcam + PciRoot::ecam_offset(slot_index); }

}  // namespace

// No vCPU runs any more and the VM goes next: hiding pages would only cost a walk through all that the guest
// has touched.
PciBars::~PciBars() {
  for (Slot& slot : slots_) {
    if (!slot.mapped) continue;
    mmio_.remove(*slot.mapped);
    slot.device->lock()->unmap_doorbells();
  }
}

Result<void> PciBars::add_host_bridge(const ConfigSpace& config) {
  SNUG_TRY(pages_.show(config_address(0), config.page()));
  return defer_inert_writes(0, config);
}

// A guest sizes the BARs of a function, and its ROM, by writes of all ones: those that the function does not
// have are the most.
Result<void> PciBars::defer_inert_writes(uint8_t slot_index, const ConfigSpace& config) {
  uint16_t first = pci::kBar0;
  for (uint16_t at = pci::kBar0; at <= pci::kBarsEnd; at += 4) {
    if (at < pci::kBarsEnd && config.inert(at)) continue;
    if (first < at)
      SNUG_TRY(pages_.defer_writes(config_address(slot_index) + first, static_cast<uint32_t>(at - first)));
    first = static_cast<uint16_t>(at + 4);
  }
  if (!config.inert(pci::kExpansionRom)) return {};
  return pages_.defer_writes(config_address(slot_index) + pci::kExpansionRom, 4);
}

Result<void> PciBars::add(uint8_t slot_index, std::string name, Synced<VirtioPci>& device) {
  std::lock_guard lock(mutex_);
  Slot& slot = slots_[slot_index];
  const PciBar bar = device.lock()->config().bar(VirtioPci::kBar);
  notes_[slot_index] = {bar.address, bar.enabled, true};
  slot = {&device, std::move(name), notes_[slot_index], std::nullopt};
  show_config(slot_index);
  SNUG_TRY(defer_inert_writes(slot_index, device.unguarded().config()));
  return map(slot, bar.address);
}

void PciBars::config_is_memory(uint8_t slot, bool is_memory) {
  std::lock_guard lock(notes_mutex_);
  notes_[slot].config_is_memory = is_memory;
  changed_.store(true, std::memory_order_release);
}

// Where it cannot be shown every read is an exit, and reads the same.
void PciBars::show_config(uint8_t slot_index) {
  Slot& slot = slots_[slot_index];
  if (slot.device == nullptr || slot.config_shown == slot.note.config_is_memory) return;
  slot.config_shown = slot.note.config_is_memory;
  if (!slot.config_shown) return pages_.hide(config_address(slot_index));
  const auto shown = pages_.show(config_address(slot_index), slot.device->unguarded().config().page());
  if (!shown) log_debug("{}: {}", slot.name, shown.error().text());
}

void PciBars::bar_changed(uint8_t slot, const PciBar&, const PciBar& now) {
  std::lock_guard lock(notes_mutex_);
  notes_[slot].address = now.address;
  notes_[slot].enabled = now.enabled;
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
  for (uint8_t i = 0; i < slots_.size(); ++i) show_config(i);
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
  // Over RAM, say. Then reads are what they are there, or exits.
  if (auto shown = pages_.show(address, slot.device->unguarded().register_pages()); !shown)
    log_debug("{}: {}", slot.name, shown.error().text());
  return {};
}

void PciBars::unmap(Slot& slot) {
  if (!slot.mapped) return;
  pages_.hide(*slot.mapped);
  mmio_.remove(*slot.mapped);
  slot.device->lock()->unmap_doorbells();
  slot.mapped.reset();
}

}  // namespace snug
