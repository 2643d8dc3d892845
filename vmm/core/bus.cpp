#include "vmm/core/bus.h"

#include <algorithm>

#include "vmm/base/checked.h"

namespace snug {
namespace {

bool starts_after(uint64_t address, const AddressRange& range) { return address < range.start; }

}  // namespace

Result<void> Bus::add_entry(Entry entry) {
  const auto [start, size] = entry.range;
  // The last address, not the end: a range may touch the top of the address space.
  const auto last = checked_add<uint64_t>(start, size - 1);
  if (size == 0 || !last)
    return fail("{} bus: range of {:#x} bytes at {:#x} for {} is empty or wraps", name_, size, start,
                entry.name);
  std::unique_lock lock(lock_);
  const auto next = std::upper_bound(entries_.begin(), entries_.end(), start,
                                     [](uint64_t a, const Entry& e) { return starts_after(a, e.range); });
  const Entry* clash = nullptr;
  if (next != entries_.end() && next->range.start <= *last) clash = &*next;
  if (next != entries_.begin()) {
    const Entry& previous = *std::prev(next);
    if (start - previous.range.start < previous.range.size) clash = &previous;
  }
  if (clash != nullptr)
    return fail("{} bus: {:#x}-{:#x} for {} overlaps {:#x}-{:#x} of {}", name_, start, *last, entry.name,
                clash->range.start, clash->range.start + (clash->range.size - 1), clash->name);
  entries_.insert(next, std::move(entry));
  return {};
}

void Bus::remove(uint64_t start) {
  std::unique_lock lock(lock_);
  std::erase_if(entries_, [start](const Entry& entry) { return entry.range.start == start; });
}

const Bus::Entry* Bus::find(uint64_t address, uint64_t length) const {
  const auto next = std::upper_bound(entries_.begin(), entries_.end(), address,
                                     [](uint64_t a, const Entry& e) { return starts_after(a, e.range); });
  if (next == entries_.begin()) return nullptr;
  const Entry& entry = *std::prev(next);
  return range_within(address - entry.range.start, length, entry.range.size) ? &entry : nullptr;
}

bool Bus::read(uint64_t address, std::span<std::byte> data) {
  std::shared_lock lock(lock_);
  const Entry* entry = find(address, data.size());
  if (entry == nullptr) {
    std::fill(data.begin(), data.end(), std::byte{0xff});
    return false;
  }
  std::lock_guard device_lock(*entry->mutex);
  entry->device->read(address - entry->range.start, data);
  return true;
}

bool Bus::write(uint64_t address, std::span<const std::byte> data) {
  std::shared_lock lock(lock_);
  const Entry* entry = find(address, data.size());
  if (entry == nullptr) return false;
  std::lock_guard device_lock(*entry->mutex);
  entry->device->write(address - entry->range.start, data);
  return true;
}

std::string Bus::device_at(uint64_t address) const {
  std::shared_lock lock(lock_);
  const Entry* entry = find(address, 1);
  return entry != nullptr ? entry->name : std::string();
}

}  // namespace snug
