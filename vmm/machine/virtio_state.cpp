// The state of virtio devices, for snapshots.
#include "vmm/machine/virtio_devices.h"

namespace snug {
namespace {

constexpr uint16_t kVersion = 1;

// By slot: what a device is called is the host's business.
std::string section_name(size_t slot) { return fmt::format("virtio{}", slot + 1); }

}  // namespace

std::string VirtioDevices::unsaveable() {
  for (Slot& slot : slots_)
    if (const std::string why = slot.transport->lock()->unsaveable(); !why.empty())
      return fmt::format("{}: {}", slot.device->name(), why);
  return {};
}

// In the order of their slots. Whoever works on a device has its lock, and no other's.
VirtioDevices::Stillness VirtioDevices::hold_still() {
  Stillness stillness;
  for (Slot& slot : slots_) stillness.emplace_back(slot.transport->mutex());
  return stillness;
}

bool VirtioDevices::settle() {
  bool settled = true;
  for (Slot& slot : slots_) settled = slot.transport->unguarded().settle() && settled;
  return settled;
}

void VirtioDevices::save(StateWriter& state) {
  for (size_t i = 0; i < slots_.size(); ++i)
    slots_[i].transport->unguarded().save(state.section(section_name(i), kVersion));
}

void VirtioDevices::save_ends(StateWriter& ends) const {
  for (size_t i = 0; i < nics_.size(); ++i)
    ends.section(nic_end(i), kEndsVersion).blob(nics_[i].device->backend().half_way());
  size_t number = 0;
  for (const DiskSource& disk : written_disks_)
    if (disk.written != nullptr) save_map(*disk.written, ends.section(overlay_end(number++), kEndsVersion));
}

Result<void> VirtioDevices::restore(StateReader& state) {
  for (size_t i = 0; i < slots_.size(); ++i) {
    auto section = SNUG_TRY(state.section(section_name(i), kVersion));
    slots_[i].transport->lock()->restore(section);
    SNUG_TRY(with_context(section.finish(), slots_[i].device->name()));
  }
  return {};
}

void VirtioDevices::wake(bool interrupt) {
  for (Slot& slot : slots_) slot.transport->lock()->wake(interrupt);
}

}  // namespace snug
