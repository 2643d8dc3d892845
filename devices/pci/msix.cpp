#include "devices/pci/msix.h"

#include <unistd.h>

#include <algorithm>
#include <array>

#include "vmm/base/assertion.h"
#include "vmm/base/endian.h"
#include "vmm/base/log.h"

namespace snug {
namespace {

// 6.8.2.3: message control.
constexpr uint16_t kControl = 2;  // offset in the capability
constexpr uint16_t kEnable = 0x8000;
constexpr uint16_t kFunctionMask = 0x4000;

// 6.8.2.6 to 6.8.2.9: a table entry.
constexpr size_t kAddressLow = 0;
constexpr size_t kAddressHigh = 4;
constexpr size_t kData = 8;
constexpr size_t kVectorControl = 12;
constexpr uint32_t kMasked = 1;

bool is_register_access(uint64_t offset, size_t length) {
  return (length == 4 || length == 8) && offset % length == 0;
}

std::array<std::byte, 10> capability_body(uint8_t bar, uint32_t table, uint32_t pending, size_t vectors) {
  std::array<std::byte, 10> body{};
  const std::span<std::byte> all(body);
  store_le(all.subspan(0, 2), vectors - 1);
  store_le(all.subspan(2, 4), table | bar);
  store_le(all.subspan(6, 4), pending | bar);
  return body;
}

}  // namespace

Msix::Msix(ConfigSpace& config, uint8_t bar, uint32_t table, uint32_t pending,
           std::vector<std::unique_ptr<MsiVector>> vectors, RegisterPages& pages)
    : config_(config), pages_(pages), table_(table), vectors_(std::move(vectors)), entries_(vectors_.size()) {
  SNUG_ASSERT(!vectors_.empty() && vectors_.size() <= 2048 && table % 8 == 0 && pending % 8 == 0);
  capability_ =
      config_.add_capability(pci::kCapabilityMsix, capability_body(bar, table, pending, vectors_.size()));
  config_.allow_write<uint16_t>(static_cast<uint16_t>(capability_ + kControl), kEnable | kFunctionMask);
  for (size_t i = 0; i < entries_.size(); ++i) show(i);
}

void Msix::after_config_write() {
  const uint16_t control = config_.read16(static_cast<uint16_t>(capability_ + kControl));
  const bool enabled = (control & kEnable) != 0;
  const bool masked = (control & kFunctionMask) != 0;
  if (enabled == enabled_ && masked == function_masked_) return;
  enabled_ = enabled;
  function_masked_ = masked;
  update_all();
}

void Msix::read_table(uint64_t offset, std::span<std::byte> data) const {
  if (!is_register_access(offset, data.size()) || offset + data.size() > table_size()) {
    std::fill(data.begin(), data.end(), std::byte{0xff});
    return;
  }
  const auto shown = pages_.bytes().subspan(table_ + offset, data.size());
  std::copy(shown.begin(), shown.end(), data.begin());
}

// The table as the guest reads it.
void Msix::show(size_t index) {
  const Entry& entry = entries_[index];
  std::array<std::byte, kEntrySize> image{};
  const std::span<std::byte> all(image);
  store_le(all.subspan(kAddressLow, 8), entry.address);
  store_le(all.subspan(kData, 4), entry.data);
  store_le(all.subspan(kVectorControl, 4), entry.masked ? kMasked : 0);
  pages_.put(table_ + index * kEntrySize, image);
}

void Msix::write_table(uint64_t offset, std::span<const std::byte> data) {
  if (!is_register_access(offset, data.size()) || offset + data.size() > table_size()) return;
  const size_t index = offset / kEntrySize;
  Entry& entry = entries_[index];
  for (size_t at = 0; at < data.size(); at += 4) {
    const auto value = static_cast<uint32_t>(load_le(data.subspan(at, 4)));
    switch ((offset + at) % kEntrySize) {
      case kAddressLow:
        entry.address = (entry.address & ~uint64_t{0xffffffff}) | (value & ~3u);
        break;
      case kAddressHigh:
        entry.address = (entry.address & 0xffffffff) | uint64_t{value} << 32;
        break;
      case kData:
        entry.data = value;
        break;
      case kVectorControl:
      default:
        entry.masked = (value & kMasked) != 0;
        break;
    }
  }
  show(index);
  update(index);
}

void Msix::read_pending(uint64_t offset, std::span<std::byte> data) const {
  for (size_t i = 0; i < data.size(); ++i) {
    unsigned bits = 0;
    for (unsigned bit = 0; bit < 8; ++bit) {
      const uint64_t index = (offset + i) * 8 + bit;
      if (index < entries_.size() && entries_[index].pending) bits |= 1u << bit;
    }
    data[i] = static_cast<std::byte>(bits);
  }
}

void Msix::raise(uint16_t vector) {
  if (vector >= entries_.size() || !enabled_) return;
  Entry& entry = entries_[vector];
  if (!entry.connected) {
    entry.pending = true;
    return;
  }
  const uint64_t one = 1;
  // Cannot fail: an eventfd that KVM empties never comes near its limit.
  (void)!::write(vectors_[vector]->event_fd(), &one, sizeof one);
}

// What is added while the vector is disconnected stays in the descriptor and is found when it is connected.
int Msix::event_fd(uint16_t vector) const {
  return enabled_ && vector < vectors_.size() ? vectors_[vector]->event_fd() : -1;
}

void Msix::reset() {
  const auto control = static_cast<uint16_t>(capability_ + kControl);
  config_.write16(control, static_cast<uint16_t>(config_.read16(control) & ~(kEnable | kFunctionMask)));
  enabled_ = function_masked_ = false;
  for (size_t i = 0; i < entries_.size(); ++i) {
    entries_[i].pending = false;
    entries_[i].masked = true;
    update(i);
    entries_[i] = {};
    show(i);
  }
}

void Msix::save(SectionWriter& out) const {
  out.number(vector_count());
  for (const Entry& entry : entries_) {
    out.number(entry.address);
    out.number(entry.data);
    out.flag(entry.masked);
    out.flag(entry.pending);
  }
}

void Msix::restore(SectionReader& in) {
  if (const auto count = in.number<uint16_t>(); count != vector_count() && in.good())
    return in.refuse(fmt::format("{} interrupt vectors, and the device has {}", count, vector_count()));
  for (size_t i = 0; i < entries_.size(); ++i) {
    Entry& entry = entries_[i];
    entry.address = in.number<uint64_t>() & ~uint64_t{3};
    entry.data = in.number<uint32_t>();
    entry.masked = in.flag();
    entry.pending = in.flag();
    show(i);
  }
  const uint16_t control = config_.read16(static_cast<uint16_t>(capability_ + kControl));
  enabled_ = (control & kEnable) != 0;
  function_masked_ = (control & kFunctionMask) != 0;
  if (in.good()) update_all();
}

void Msix::update_all() {
  for (size_t i = 0; i < entries_.size(); ++i) update(i);
}

// Connects or disconnects a vector as the table says. An interrupt that came while it was masked follows.
void Msix::update(size_t index) {
  Entry& entry = entries_[index];
  if (!enabled_) entry.pending = false;
  if (!enabled_ || function_masked_ || entry.masked) {
    if (entry.connected) vectors_[index]->mask();
    entry.connected = false;
    return;
  }
  const MsiMessage message{entry.address, entry.data};
  if (!entry.connected || entry.message != message) {
    if (auto set = vectors_[index]->set(message); !set) {
      log_warn("MSI-X vector {}: {}", index, set.error().text());
      // Nor to where it was connected before.
      if (entry.connected) vectors_[index]->mask();
      entry.connected = false;
      return;
    }
    entry.connected = true;
    entry.message = message;
  }
  if (entry.pending) {
    entry.pending = false;
    raise(static_cast<uint16_t>(index));
  }
}

}  // namespace snug
