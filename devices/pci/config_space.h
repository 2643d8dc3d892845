// The configuration registers of one PCI function: a page of bytes, with masks that say what the guest may
// change. Reads have no side effects, so the page can be shown to the guest as read-only memory.
//
// Owner: a PciDevice. Thread: set-up by the machine builder, then under the device's lock.
// The guest controls every bit that a mask opens, and nothing else.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "devices/pci/registers.h"
#include "vmm/core/state.h"

namespace snug {

// Type 0 header, PCI Local Bus 3.0 6.2.1 and 6.2.4.
struct PciIdentity {
  uint16_t vendor = 0;
  uint16_t device = 0;
  uint32_t class_code = 0;  // 24 bits: class, subclass, programming interface
  uint8_t revision = 0;
  uint16_t subsystem_vendor = 0;
  uint16_t subsystem = 0;
};

enum class PciBarKind { kMemory32, kMemory64, kMemory64Prefetchable };

// A BAR as the guest has set it. A 64-bit BAR goes by its lower register's index.
struct PciBar {
  unsigned index = 0;
  PciBarKind kind = PciBarKind::kMemory32;
  uint64_t size = 0;  // bytes, a power of two; 0: no such BAR
  uint64_t address = 0;
  bool enabled = false;  // the guest lets the function answer in memory space
  bool operator==(const PciBar&) const = default;
};

class ConfigSpace {
 public:
  static constexpr size_t kSize = 4096;
  // Conventional space, all that capabilities and masks can lie in. The extended space behind it reads as
  // all ones, which is how a guest sees that a function has none (PCI Express 6.0, 7.9.1).
  static constexpr size_t kConventional = 256;

  explicit ConfigSpace(const PciIdentity& identity);

  // --- set-up; a wrong argument is our own bug and asserts ---

  // `index` 0..5; a 64-bit BAR takes the next register too. `size`: a power of two, at least 16 bytes.
  void add_bar(unsigned index, PciBarKind kind, uint64_t size);
  // Puts a BAR somewhere, as firmware does; aligned to its size. Tells no one.
  void place_bar(unsigned index, uint64_t address);
  // `body` is what follows the ID and the next pointer. The offset of the capability, a multiple of 4; the
  // guest finds them in the order in which they were added.
  uint16_t add_capability(uint8_t id, std::span<const std::byte> body);
  // INTA..INTD as 1..4; `line`: what firmware would have stored.
  void set_interrupt_pin(uint8_t pin, uint8_t line);
  // Opens bits of [offset, offset + size of T) to the guest: plain, or write-1-to-clear.
  template <class T>
  void allow_write(uint16_t offset, T mask) {
    open_bits(writable_, offset, mask, sizeof mask);
  }
  template <class T>
  void allow_clear(uint16_t offset, T mask) {
    open_bits(clearable_, offset, mask, sizeof mask);
  }

  // --- the device's side, past the masks ---

  uint8_t read8(uint16_t offset) const { return static_cast<uint8_t>(load(offset, 1)); }
  uint16_t read16(uint16_t offset) const { return static_cast<uint16_t>(load(offset, 2)); }
  uint32_t read32(uint16_t offset) const { return static_cast<uint32_t>(load(offset, 4)); }
  void write8(uint16_t offset, uint8_t value) { store(offset, value, 1); }
  void write16(uint16_t offset, uint16_t value) { store(offset, value, 2); }
  void write32(uint16_t offset, uint32_t value) { store(offset, value, 4); }

  PciBar bar(unsigned index) const;
  // Whether no bit of the register of 4 bytes there can be changed by the guest. `offset`: a multiple of 4.
  bool inert(uint16_t offset) const;
  bool bus_master() const { return (read16(pci::kCommand) & pci::kCommandBusMaster) != 0; }
  bool intx_disabled() const { return (read16(pci::kCommand) & pci::kCommandIntxDisable) != 0; }

  // Page-aligned, kSize bytes, at the same place for life.
  std::span<const std::byte> page() const { return *page_; }

  // --- the guest's side: any offset and length; what lies outside reads as all ones ---

  void guest_read(uint64_t offset, std::span<std::byte> data) const;
  void guest_write(uint64_t offset, std::span<const std::byte> data);

  // For snapshots. restore() changes what a guest could have changed, and refuses another function's
  // registers.
  void save(SectionWriter& out) const { out.bytes(page().first(kConventional)); }
  void restore(SectionReader& in);

 private:
  struct alignas(kSize) Page : std::array<std::byte, kSize> {};
  using Mask = std::array<uint8_t, kConventional>;
  struct BarShape {
    PciBarKind kind;
    uint64_t size;
  };

  uint64_t load(uint16_t offset, size_t size) const;
  void store(uint16_t offset, uint64_t value, size_t size);
  static void open_bits(Mask& mask, uint16_t offset, uint64_t bits, size_t size);

  std::unique_ptr<Page> page_;
  Mask writable_{};
  Mask clearable_{};
  std::array<BarShape, pci::kBarCount> bars_{};
  uint16_t last_capability_ = 0;
  uint16_t capabilities_end_ = pci::kHeaderEnd;
};

}  // namespace snug
