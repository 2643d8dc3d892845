// RAM as a file: page by page at the offset that it has in RAM, the part above the hole behind the one below
// it. Pages of zeros are holes.
//
// Thread: one. What is written to RAM meanwhile may be in the file, or half of it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/guest_memory.h"

namespace snug {

// What the kernel tells of this process's pages (Documentation/admin-guide/mm/pagemap.rst):
// /proc/self/pagemap, opened before the process is locked in. None where that cannot be: all of RAM is looked
// at then.
UniqueFd open_pagemap();

class MemoryImageWriter {
 public:
  // All are the caller's: `pagemap` of open_pagemap(), `file` an empty one.
  MemoryImageWriter(const GuestMemory& memory, const UniqueFd& pagemap, int file)
      : memory_(memory), pagemap_(pagemap), file_(file) {}
  // Whether the file is as large as it is to be.
  void has_its_size() { sized_ = true; }

  // All of it. Errors: of the file.
  Result<void> write_all();
  // After write_all(): the pages of these bits (dirty_log.h) as they are now. What was written to since they
  // were taken has to be written again. Errors: of the file.
  Result<void> write_pages(std::span<const uint64_t> dirty);

 private:
  struct Page;
  template <class Each>
  Result<void> for_each_page(Each each);
  Result<void> write(const std::byte* page, uint64_t offset);
  Result<void> clear(uint64_t offset);
  Result<void> flush();

  const GuestMemory& memory_;
  const UniqueFd& pagemap_;
  int file_;
  bool sized_ = false;

  std::vector<bool> written_;  // by page of the file
  // Pages side by side that are to be written at once.
  const std::byte* run_ = nullptr;
  uint64_t run_offset_ = 0;
  uint64_t run_length_ = 0;
};

// In the place of RAM that is all zero, copy-on-write: nobody may write to the file any more, which stays
// open for as long as `memory` lives. Memory that another process has as well gets a copy. Errors: a file
// that is not one of so much RAM; it cannot be mapped.
Result<void> map_memory_image(const GuestMemory& memory, int file);

}  // namespace snug
