#include "devices/pci/root.h"

#include <algorithm>

namespace snug {
namespace {

constexpr unsigned kFunctionShift = 12;
constexpr unsigned kSlotShift = 15;
constexpr uint64_t kRegisterMask = 0xfff;
constexpr uint64_t kFunctionMask = 7;

// What QEMU's generic PCI Express host bridge calls itself: no driver binds to it, none takes it for a
// chipset with registers of its own.
constexpr PciIdentity kHostBridge = {.vendor = 0x1b36, .device = 0x0008, .class_code = 0x060000};

// How much of an access lies in the dword it starts in.
size_t in_dword(uint64_t offset, size_t length) { return std::min<size_t>(length, 4 - (offset & 3)); }

bool touches(uint16_t offset, size_t length, uint16_t start, size_t size) {
  return offset < start + size && start < offset + length;
}

}  // namespace

PciRoot::PciRoot(PciBarListener* listener) : listener_(listener), host_bridge_(kHostBridge) {
  slots_[0] = {&host_bridge_.unguarded(), &host_bridge_.mutex()};
}

Result<void> PciRoot::add_slot(uint8_t slot, Slot entry) {
  if (slot >= kSlots) return fail("PCI slot {}: bus 0 has {}", slot, kSlots);
  if (slots_[slot].device != nullptr) return fail("PCI slot {} is taken", slot);
  slots_[slot] = entry;
  return {};
}

const PciRoot::Slot* PciRoot::function_at(uint64_t ecam_offset) const {
  if (ecam_offset >= kEcamSize || ((ecam_offset >> kFunctionShift) & kFunctionMask) != 0) return nullptr;
  const Slot& slot = slots_[ecam_offset >> kSlotShift];
  return slot.device != nullptr ? &slot : nullptr;
}

void PciRoot::read(uint64_t ecam_offset, std::span<std::byte> data) {
  while (!data.empty()) {
    const size_t length = in_dword(ecam_offset, data.size());
    const auto part = data.first(length);
    if (const Slot* slot = function_at(ecam_offset)) {
      const auto offset = static_cast<uint16_t>(ecam_offset & kRegisterMask);
      std::lock_guard lock(*slot->mutex);
      slot->device->before_config_read(offset, length);
      slot->device->config().guest_read(offset, part);
    } else {
      std::fill(part.begin(), part.end(), std::byte{0xff});
    }
    ecam_offset += length;
    data = data.subspan(length);
  }
}

void PciRoot::write(uint64_t ecam_offset, std::span<const std::byte> data) {
  while (!data.empty()) {
    const size_t length = in_dword(ecam_offset, data.size());
    if (function_at(ecam_offset) != nullptr)
      write_register(static_cast<uint8_t>(ecam_offset >> kSlotShift),
                     static_cast<uint16_t>(ecam_offset & kRegisterMask), data.first(length));
    ecam_offset += length;
    data = data.subspan(length);
  }
}

void PciRoot::write_register(uint8_t slot_index, uint16_t offset, std::span<const std::byte> data) {
  const Slot& slot = slots_[slot_index];
  std::lock_guard lock(*slot.mutex);
  const bool was_memory = slot.device->config_is_memory();
  write_device(slot_index, offset, data);
  const bool is_memory = slot.device->config_is_memory();
  if (listener_ != nullptr && is_memory != was_memory) listener_->config_is_memory(slot_index, is_memory);
}

void PciRoot::save(SectionWriter& out) const {
  for (const Slot& slot : slots_) {
    out.flag(slot.device != nullptr);
    if (slot.device == nullptr) continue;
    std::lock_guard lock(*slot.mutex);
    slot.device->config().save(out);
  }
}

void PciRoot::restore(SectionReader& in) {
  for (uint8_t i = 0; i < slots_.size() && in.good(); ++i) {
    const bool there = slots_[i].device != nullptr;
    if (in.flag() != there && in.good())
      return in.refuse(fmt::format("slot {}: {}", i, there ? "there was no device" : "there is no device"));
    if (there) restore_slot(i, in);
  }
}

void PciRoot::restore_slot(uint8_t slot_index, SectionReader& in) {
  const Slot& slot = slots_[slot_index];
  std::lock_guard lock(*slot.mutex);
  ConfigSpace& config = slot.device->config();
  std::array<PciBar, pci::kBarCount> before;
  for (unsigned i = 0; i < before.size(); ++i) before[i] = config.bar(i);
  config.restore(in);
  if (listener_ == nullptr || !in.good()) return;
  for (const PciBar& old : before)
    if (const PciBar now = config.bar(old.index); now.size != 0) listener_->bar_changed(slot_index, old, now);
  listener_->config_is_memory(slot_index, slot.device->config_is_memory());
}

void PciRoot::write_device(uint8_t slot_index, uint16_t offset, std::span<const std::byte> data) {
  const Slot& slot = slots_[slot_index];
  ConfigSpace& config = slot.device->config();
  const bool command = touches(offset, data.size(), pci::kCommand, 2);
  if (!command && !touches(offset, data.size(), pci::kBar0, 4 * pci::kBarCount)) {
    config.guest_write(offset, data);
    slot.device->after_config_write(offset, data.size());
    return;
  }
  std::array<PciBar, pci::kBarCount> before;
  for (unsigned i = 0; i < before.size(); ++i) before[i] = config.bar(i);
  config.guest_write(offset, data);
  slot.device->after_config_write(offset, data.size());
  for (const PciBar& old : before) {
    const PciBar now = config.bar(old.index);
    // While decoding is off an address means nothing yet.
    const bool changed = old.enabled != now.enabled || (now.enabled && old.address != now.address);
    if (now.size == 0 || !changed) continue;
    slot.device->bar_changed(old, now);
    if (listener_ != nullptr) listener_->bar_changed(slot_index, old, now);
  }
}

}  // namespace snug
