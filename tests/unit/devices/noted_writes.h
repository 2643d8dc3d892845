// Whether all that changes in guest memory is noted (vmm/core/dirty_log.h), by whatever way it came there.
#pragma once

#include <cstring>
#include <vector>

#include "vmm/core/guest_memory.h"

namespace snug::test {

class NotedWrites {
 public:
  // From now on.
  explicit NotedWrites(const GuestMemory& memory) : memory_(memory), before_(memory.size()) {
    std::vector<uint64_t> none(dirty_words(memory.size()));
    memory.notes().take(none);
    (void)memory.read(0, before_);
  }

  // Pages that are others by now and were not noted.
  std::vector<uint64_t> missed() const {
    std::vector<uint64_t> bits(dirty_words(memory_.size()));
    memory_.notes().take(bits);
    std::vector<std::byte> now(before_.size());
    (void)memory_.read(0, now);
    std::vector<uint64_t> pages;
    for (uint64_t page = 0; page < now.size() / 4096; ++page) {
      const bool noted = (bits[page / kPagesOfWord] >> (page % kPagesOfWord) & 1) != 0;
      if (!noted && std::memcmp(&now[page * 4096], &before_[page * 4096], 4096) != 0) pages.push_back(page);
    }
    return pages;
  }

 private:
  const GuestMemory& memory_;
  std::vector<std::byte> before_;
};

}  // namespace snug::test
