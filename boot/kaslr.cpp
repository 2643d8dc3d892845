#include "boot/kaslr.h"

#include <algorithm>
#include <vector>

#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

namespace snug::boot {
namespace {

// Linux, arch/x86/include/asm/page_64_types.h: __START_KERNEL_map, of which the lists keep the low half, and
// KERNEL_IMAGE_SIZE of a kernel with CONFIG_RANDOMIZE_BASE.
constexpr uint32_t kKernelMapLow = 0x80000000;
constexpr uint64_t kKernelImageSize = kGiB;
// Linux maps its image in pages of this size: nothing finer works (asm/boot.h, MIN_KERNEL_ALIGN).
constexpr uint64_t kAlignmentMin = 2 * kMiB;

// Number `random` modulo the places that a step of `alignment` gives in `room` bytes, as an offset. The bias
// of the modulo is below 2^-50.
uint64_t choose(uint64_t random, uint64_t room, uint64_t alignment) {
  const uint64_t step = std::max(alignment, kAlignmentMin);
  return random % (room / step + 1) * step;
}

}  // namespace

std::span<const uint32_t> Relocations::of(Kind kind) const {
  size_t first = 0;
  for (size_t before = 0; before < kind; ++before) first += counts[before];
  return all().subspan(first, counts[kind]);
}

std::optional<Relocations> parse_relocations(std::span<const std::byte> tail, uint64_t link_start,
                                             uint64_t size) {
  if (tail.size() < 3 * sizeof(uint32_t) || tail.size() % sizeof(uint32_t) != 0) return std::nullopt;
  const auto word = [tail](size_t i) {
    return static_cast<uint32_t>(load_le(tail.subspan(i * sizeof(uint32_t), sizeof(uint32_t))));
  };
  // Each list has a zero in front of it: 64-bit addresses; 32-bit ones relative to them, subtracted (until
  // Linux 6.14); 32-bit addresses.
  std::vector<uint32_t> offsets;
  std::vector<size_t> counts;
  const size_t words = tail.size() / sizeof(uint32_t);
  offsets.reserve(words);
  if (word(0) != 0) return std::nullopt;
  for (size_t i = 0; i < words; ++i) {
    const uint32_t value = word(i);
    if (value == 0) {
      if (counts.size() == Relocations::kKinds) return std::nullopt;
      counts.push_back(0);
      continue;
    }
    const uint64_t link_gpa = value - kKernelMapLow;
    if (value < kKernelMapLow || link_gpa < link_start || link_gpa - link_start >= size) return std::nullopt;
    offsets.push_back(static_cast<uint32_t>(link_gpa - link_start));
    ++counts.back();
  }
  if (counts.size() < 2 || offsets.empty()) return std::nullopt;
  if (counts.size() == 2) counts.insert(counts.begin() + Relocations::kSubtract32, 0);
  Relocations relocations;
  std::ranges::copy(counts, relocations.counts.begin());
  auto kept = std::make_shared<std::vector<uint32_t>>(std::move(offsets));
  relocations.offsets = {kept, kept->data()};
  return relocations;
}

uint64_t physical_offset(const Placement& placement, uint64_t start, uint64_t end, uint64_t limit,
                         uint64_t alignment) {
  const auto reserved_end = checked_add(end, placement.reserve_above);
  if (!placement.randomise || !reserved_end || *reserved_end > limit || start > end) return 0;
  return choose(placement.physical_random, limit - *reserved_end, alignment);
}

uint64_t virtual_offset(const Placement& placement, uint64_t start, uint64_t end, uint64_t alignment) {
  if (!placement.randomise || start > end || end > kKernelImageSize) return 0;
  return choose(placement.virtual_random, kKernelImageSize - end, alignment);
}

bool relocate(const GuestMemory& memory, const Relocations& relocations, uint64_t gpa, uint64_t size,
              uint64_t offset) {
  const auto offset32 = static_cast<uint32_t>(offset);
  return memory.add_at<uint64_t>(gpa, size, relocations.of(Relocations::kAdd64), offset) &&
         memory.add_at<uint32_t>(gpa, size, relocations.of(Relocations::kSubtract32), 0 - offset32) &&
         memory.add_at<uint32_t>(gpa, size, relocations.of(Relocations::kAdd32), offset32);
}

}  // namespace snug::boot
