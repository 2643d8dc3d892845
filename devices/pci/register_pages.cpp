#include "devices/pci/register_pages.h"

#include <cstring>

#include "vmm/base/assertion.h"
#include "vmm/base/checked.h"

namespace snug {

RegisterPages::RegisterPages(size_t pages)
    : pages_(std::make_unique<Page[]>(pages)), size_(pages * kPageSize) {}

bool RegisterPages::put(uint64_t offset, std::span<const std::byte> registers) {
  SNUG_ASSERT(offset % 4 == 0 && registers.size() % 4 == 0 && range_within(offset, registers.size(), size_));
  auto* words = reinterpret_cast<uint32_t*>(pages_.get()) + offset / 4;
  bool changed = false;
  for (size_t at = 0; at < registers.size(); at += 4, ++words) {
    uint32_t word = 0;
    std::memcpy(&word, registers.data() + at, sizeof word);
    if (word == *words) continue;
    __atomic_store_n(words, word, __ATOMIC_RELAXED);
    changed = true;
  }
  return changed;
}

}  // namespace snug
