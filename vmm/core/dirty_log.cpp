#include "vmm/core/dirty_log.h"

#include <algorithm>
#include <bit>

namespace snug {

uint64_t dirty_pages(std::span<const uint64_t> bits) {
  uint64_t pages = 0;
  for (const uint64_t word : bits) pages += static_cast<uint64_t>(std::popcount(word));
  return pages;
}

// The atomic operation comes after the writes that it tells of, in the eyes of all processors (x86: it is
// locked), also where the bit is set already: whoever clears it meanwhile sees them.
void DirtyNotes::note(uint64_t offset, uint64_t length) const {
  if (length == 0) return;
  uint64_t page = offset / 4096;
  const uint64_t last = (offset + length - 1) / 4096;
  while (page <= last) {
    const uint64_t from = page % kPagesOfWord;
    const uint64_t count = std::min(kPagesOfWord - from, last - page + 1);
    const uint64_t bits = (count == kPagesOfWord ? ~uint64_t{0} : (uint64_t{1} << count) - 1) << from;
    __atomic_fetch_or(&words_[page / kPagesOfWord], bits, __ATOMIC_SEQ_CST);
    page += count;
  }
}

void DirtyNotes::take(std::span<uint64_t> bits) const {
  for (size_t i = 0; i < words_.size(); ++i)
    if (__atomic_load_n(&words_[i], __ATOMIC_RELAXED) != 0)
      bits[i] |= __atomic_exchange_n(&words_[i], 0, __ATOMIC_SEQ_CST);
}

}  // namespace snug
