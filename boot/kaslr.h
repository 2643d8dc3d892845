// Kernel address space layout randomisation by whoever loads the kernel (Linux does it in the bzImage's own
// loader, which snug does not run): a random place in guest RAM, and a random place in the kernel's part of
// the virtual address space, for which every absolute address in the kernel is changed.
//
// A bzImage built with CONFIG_RANDOMIZE_BASE has, behind the ELF in its payload, the list of these addresses
// (Linux, arch/x86/tools/relocs.c; arch/x86/boot/compressed/misc.c, handle_relocations). The lists are
// hostile like the rest of the file: what they reach is checked to be the kernel's own memory. One thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "vmm/core/guest_memory.h"

namespace snug::boot {

// Where a kernel may be put. The default leaves it where it was linked to.
struct Placement {
  bool randomise = false;
  uint64_t reserve_above = 0;                        // bytes of RAM to be left free above it, for initrds
  uint64_t physical_random = 0, virtual_random = 0;  // evenly distributed
};

// Places of absolute addresses, as offsets from the kernel's first byte. Each list ascends.
struct Relocations {
  enum Kind : size_t { kAdd64, kSubtract32, kAdd32, kKinds };

  std::array<size_t, kKinds> counts{};
  std::shared_ptr<const uint32_t> offsets;  // all lists, one behind the other

  size_t total() const { return counts[kAdd64] + counts[kSubtract32] + counts[kAdd32]; }
  std::span<const uint32_t> all() const { return {offsets.get(), total()}; }
  std::span<const uint32_t> of(Kind kind) const;
};

// `tail`: what the payload has behind its ELF. `link_start`: the gpa the kernel is linked to, `size`: bytes
// from there to its end. Nothing when there are no relocations, or when it does not look like them.
std::optional<Relocations> parse_relocations(std::span<const std::byte> tail, uint64_t link_start,
                                             uint64_t size);

// How far from [start, end), where it was linked to, the kernel is put: a multiple of `alignment`, with its
// end at most at `limit`. 0 unless `placement` asks for more and there is room.
uint64_t physical_offset(const Placement& placement, uint64_t start, uint64_t end, uint64_t limit,
                         uint64_t alignment);

// How far its virtual addresses are moved: it stays in the GiB that Linux keeps for it.
uint64_t virtual_offset(const Placement& placement, uint64_t start, uint64_t end, uint64_t alignment);

// Moves the virtual addresses in the kernel that lies in [gpa, gpa + size). False when a relocation lies
// outside; those before it are done then.
[[nodiscard]] bool relocate(const GuestMemory& memory, const Relocations& relocations, uint64_t gpa,
                            uint64_t size, uint64_t offset);

}  // namespace snug::boot
