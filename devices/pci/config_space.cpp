#include "devices/pci/config_space.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "vmm/base/assertion.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

namespace snug {
namespace {

constexpr size_t kBarBytes = 4;

bool is_64_bit(PciBarKind kind) { return kind != PciBarKind::kMemory32; }

size_t bar_bytes(PciBarKind kind) { return is_64_bit(kind) ? 8 : kBarBytes; }

uint16_t bar_register(unsigned index) { return static_cast<uint16_t>(pci::kBar0 + kBarBytes * index); }

uint64_t bar_flags(PciBarKind kind) {
  switch (kind) {
    case PciBarKind::kMemory32:
      return 0;
    case PciBarKind::kMemory64:
      return pci::kBarType64;
    case PciBarKind::kMemory64Prefetchable:
      return pci::kBarType64 | pci::kBarPrefetchable;
  }
  return 0;
}

}  // namespace

ConfigSpace::ConfigSpace(const PciIdentity& identity) : page_(std::make_unique<Page>()) {
  std::fill(page_->begin() + kConventional, page_->end(), std::byte{0xff});
  write16(pci::kVendorId, identity.vendor);
  write16(pci::kDeviceId, identity.device);
  write8(pci::kRevision, identity.revision);
  store(pci::kClassCode, identity.class_code, 3);
  write16(pci::kSubsystemVendorId, identity.subsystem_vendor);
  write16(pci::kSubsystemId, identity.subsystem);
  // No I/O space: nothing here has I/O BARs.
  allow_write<uint16_t>(pci::kCommand, pci::kCommandMemory | pci::kCommandBusMaster | pci::kCommandParity |
                                           pci::kCommandSerr | pci::kCommandIntxDisable);
  allow_clear<uint16_t>(pci::kStatus, pci::kStatusErrors);
  allow_write<uint8_t>(pci::kCacheLineSize, 0xff);
  allow_write<uint8_t>(pci::kInterruptLine, 0xff);
}

// Sizing needs no code: address bits below the size are not writable, so all ones written read back as the
// size's complement with the type bits (6.2.5.1).
void ConfigSpace::add_bar(unsigned index, PciBarKind kind, uint64_t size) {
  SNUG_ASSERT(index + (is_64_bit(kind) ? 1 : 0) < pci::kBarCount);
  SNUG_ASSERT(std::has_single_bit(size) && size >= 16 && (is_64_bit(kind) || size <= 2 * kGiB));
  const uint16_t offset = bar_register(index);
  SNUG_ASSERT(bars_[index].size == 0 && writable_[offset + 3u] == 0);
  SNUG_ASSERT(!is_64_bit(kind) || bars_[index + 1].size == 0);
  bars_[index] = {kind, size};
  store(offset, bar_flags(kind), bar_bytes(kind));
  open_bits(writable_, offset, ~(size - 1), bar_bytes(kind));
}

void ConfigSpace::place_bar(unsigned index, uint64_t address) {
  SNUG_ASSERT(index < pci::kBarCount && bars_[index].size != 0);
  const BarShape& shape = bars_[index];
  SNUG_ASSERT((address & (shape.size - 1)) == 0 && (is_64_bit(shape.kind) || address < 4 * kGiB));
  store(bar_register(index), address | bar_flags(shape.kind), bar_bytes(shape.kind));
}

uint16_t ConfigSpace::add_capability(uint8_t id, std::span<const std::byte> body) {
  const uint16_t offset = capabilities_end_;
  const size_t size = (body.size() + 2 + 3) & ~size_t{3};
  SNUG_ASSERT(range_within(offset, size, kConventional));
  write8(offset, id);
  std::copy(body.begin(), body.end(), page_->begin() + offset + 2);
  if (last_capability_ == 0) {
    write8(pci::kCapabilities, static_cast<uint8_t>(offset));
    write16(pci::kStatus, read16(pci::kStatus) | pci::kStatusCapabilityList);
  } else {
    write8(static_cast<uint16_t>(last_capability_ + 1), static_cast<uint8_t>(offset));
  }
  last_capability_ = offset;
  capabilities_end_ = static_cast<uint16_t>(offset + size);
  return offset;
}

void ConfigSpace::set_interrupt_pin(uint8_t pin, uint8_t line) {
  SNUG_ASSERT(pin <= 4);
  write8(pci::kInterruptPin, pin);
  write8(pci::kInterruptLine, line);
}

PciBar ConfigSpace::bar(unsigned index) const {
  if (index >= pci::kBarCount || bars_[index].size == 0) return {index, PciBarKind::kMemory32, 0, 0, false};
  const auto [kind, size] = bars_[index];
  const uint64_t raw = load(bar_register(index), bar_bytes(kind));
  return {index, kind, size, raw & ~(size - 1), (read16(pci::kCommand) & pci::kCommandMemory) != 0};
}

bool ConfigSpace::inert(uint16_t offset) const {
  SNUG_ASSERT(offset % 4 == 0 && range_within(offset, size_t{4}, kConventional));
  const auto none = [&](const Mask& mask) {
    return std::all_of(mask.begin() + offset, mask.begin() + offset + 4,
                       [](uint8_t bits) { return bits == 0; });
  };
  return none(writable_) && none(clearable_);
}

void ConfigSpace::guest_read(uint64_t offset, std::span<std::byte> data) const {
  const size_t inside = offset < kSize ? std::min<size_t>(data.size(), kSize - offset) : 0;
  if (inside > 0) std::memcpy(data.data(), page_->data() + offset, inside);
  const auto outside = data.subspan(inside);
  std::fill(outside.begin(), outside.end(), std::byte{0xff});
}

void ConfigSpace::guest_write(uint64_t offset, std::span<const std::byte> data) {
  for (size_t i = 0; i < data.size() && offset < kConventional; ++i, ++offset) {
    std::byte& byte = (*page_)[offset];
    const auto old = std::to_integer<unsigned>(byte);
    const auto value = std::to_integer<unsigned>(data[i]);
    const unsigned kept = old & ~unsigned{writable_[offset]} & ~(value & clearable_[offset]);
    byte = static_cast<std::byte>(kept | (value & writable_[offset]));
  }
}

void ConfigSpace::restore(SectionReader& in) {
  std::array<std::byte, kConventional> saved{};
  in.bytes(saved);
  if (!in.good()) return;
  for (size_t i = 0; i < saved.size(); ++i) {
    // The status register is the device's.
    if (i == pci::kStatus || i == pci::kStatus + 1) continue;
    std::byte& byte = (*page_)[i];
    const auto own = std::to_integer<unsigned>(byte);
    const auto other = std::to_integer<unsigned>(saved[i]);
    const unsigned guests = writable_[i];
    if (((own ^ other) & ~guests & ~unsigned{clearable_[i]}) != 0)
      return in.refuse(fmt::format("another device: register {:#x} is {:#x}, and was {:#x}", i, own, other));
    byte = static_cast<std::byte>((own & ~guests) | (other & guests));
  }
}

uint64_t ConfigSpace::load(uint16_t offset, size_t size) const {
  SNUG_ASSERT(range_within(offset, size, kSize));
  return load_le(page().subspan(offset, size));
}

void ConfigSpace::store(uint16_t offset, uint64_t value, size_t size) {
  SNUG_ASSERT(range_within(offset, size, kSize));
  store_le(std::span<std::byte>(*page_).subspan(offset, size), value);
}

void ConfigSpace::open_bits(Mask& mask, uint16_t offset, uint64_t bits, size_t size) {
  SNUG_ASSERT(range_within(offset, size, kConventional));
  for (size_t i = 0; i < size; ++i) mask[offset + i] |= static_cast<uint8_t>(bits >> (8 * i));
}

}  // namespace snug
