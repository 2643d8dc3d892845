// MSI-X (PCI Local Bus 3.0, 6.8.2): a table of messages in a BAR, each maskable, and the array of pending
// bits.
//
// Owner: a PCI device, which forwards configuration writes and the accesses to its BAR.
// Thread: the device's lock held. The guest controls every byte of the table.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "devices/pci/config_space.h"
#include "devices/pci/register_pages.h"
#include "vmm/core/interrupt.h"
#include "vmm/core/state.h"

namespace snug {

class Msix {
 public:
  static constexpr uint32_t kEntrySize = 16;

  // `vectors`: one per table entry, 1 to 2048, all masked. `table` and `pending`: offsets in BAR `bar`,
  // multiples of 8. `pages`: the beginning of that BAR, with the table in it, which is kept current there.
  Msix(ConfigSpace& config, uint8_t bar, uint32_t table, uint32_t pending,
       std::vector<std::unique_ptr<MsiVector>> vectors, RegisterPages& pages);

  uint32_t table_size() const { return static_cast<uint32_t>(entries_.size()) * kEntrySize; }
  uint16_t vector_count() const { return static_cast<uint16_t>(entries_.size()); }
  // Whether the guest has switched MSI-X on; INTx is not to be used then.
  bool enabled() const { return enabled_; }

  // The guest has written configuration space.
  void after_config_write();
  // Accesses to the table and the pending bits. Of 4 or 8 bytes, aligned, as the specification asks; others
  // read as all ones and write nothing.
  void read_table(uint64_t offset, std::span<std::byte> data) const;
  void write_table(uint64_t offset, std::span<const std::byte> data);
  void read_pending(uint64_t offset, std::span<std::byte> data) const;

  // Raises a vector, or makes it pending while it is masked. One that does not exist is ignored.
  void raise(uint16_t vector);
  // Adding 1 to it raises a vector, also one that is masked, later; -1 while MSI-X is off.
  int event_fd(uint16_t vector) const;
  // Power-on state.
  void reset();

  // For snapshots. Restored when configuration space was, into one as reset() leaves it.
  void save(SectionWriter& out) const;
  void restore(SectionReader& in);

 private:
  struct Entry {
    uint64_t address = 0;
    uint32_t data = 0;
    bool masked = true;
    bool pending = false;
    bool connected = false;
    MsiMessage message;  // what it is connected to
  };

  void update(size_t index);
  void update_all();
  void show(size_t index);

  ConfigSpace& config_;
  RegisterPages& pages_;
  const uint32_t table_;
  uint16_t capability_;
  bool enabled_ = false;
  bool function_masked_ = false;
  std::vector<std::unique_ptr<MsiVector>> vectors_;
  std::vector<Entry> entries_;
};

}  // namespace snug
