// A disk whose writes go to a second file while the first stays as it is: what was written is read from the
// second. One bit for each sector says which has it, so that nothing is ever copied from one to the other.
//
// Thread: as BlockBackend.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "devices/virtio/block/backend.h"
#include "vmm/base/mapping.h"
#include "vmm/core/state.h"

namespace snug {

// Which sectors of 512 bytes the overlay has. Memory is taken as bits are set: 4 KiB for 16 MiB of disk.
class SectorMap {
 public:
  SectorMap() = default;
  // `sectors` > 0: their number.
  static Result<SectorMap> create(uint64_t sectors);

  // All sectors are below the number given to create().
  bool has(uint64_t sector) const;
  void set(uint64_t first, uint64_t count);
  // How many sectors from `first` on are like it, at most `limit`.
  uint64_t run(uint64_t first, uint64_t limit) const;
  // Where it is kept: 64-bit words, the lowest bit the first sector.
  std::span<std::byte> bits() { return bits_.bytes(); }
  std::span<const std::byte> bits() const { return bits_.bytes(); }
  // There are no sectors from `sectors` on, whatever the last word says.
  void trim(uint64_t sectors);

 private:
  explicit SectorMap(Mapping bits) : bits_(std::move(bits)) {}
  uint64_t& word(uint64_t sector) const;
  Mapping bits_;
};

// The map for another process that has the same overlay, and is of as many sectors.
void save_map(const SectorMap& written, SectionWriter& out);
// None of its sectors is set. What is wrong is told by `in`.
void restore_map(SectorMap& written, SectionReader& in);

// `inner` has two files of the disk's size: 0, which is only read, and 1. `written` is the caller's and
// outlives the backend: the same file and the same map go together. Offsets and lengths are whole sectors.
std::unique_ptr<BlockBackend> make_overlay_backend(std::unique_ptr<BlockBackend> inner, SectorMap& written);

}  // namespace snug
