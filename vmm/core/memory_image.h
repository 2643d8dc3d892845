// RAM as a file: page by page at the offset that it has in RAM, the part above the hole behind the one below
// it. Pages of zeros are holes.
//
// Thread: one, while nothing writes to RAM.
#pragma once

#include <cstdint>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/guest_memory.h"

namespace snug {

// What the kernel tells of this process's pages (Documentation/admin-guide/mm/pagemap.rst, soft-dirty.rst).
struct OwnPages {
  UniqueFd pagemap;     // /proc/self/pagemap; or none: all of RAM is looked at
  UniqueFd clear_refs;  // /proc/self/clear_refs; or none

  // Before the process is locked in. What cannot be opened is missed.
  static OwnPages open();
};

class MemoryImageWriter {
 public:
  // `pages` and `memory` are the caller's, and so is `file`, an empty one.
  MemoryImageWriter(const GuestMemory& memory, const OwnPages& pages, int file)
      : memory_(memory), pages_(pages), file_(file) {}

  // Notes from now on which pages are written to, by whomever. False: this kernel does not tell, or another
  // process has the memory as well; RAM has to stand still from before write_all() then. Memory that is
  // pinned for a device meanwhile is not noted.
  bool begin_noting();
  // All of it. Errors: of the file.
  Result<void> write_all();
  // While nothing writes to RAM: what has changed since begin_noting(). Errors: of the file.
  Result<void> write_changed();

 private:
  struct Page;
  template <class Skip, class Each>
  Result<void> for_each_page(Skip skip, Each each);
  Result<void> write(const Page& page);
  Result<void> clear(const Page& page);

  const GuestMemory& memory_;
  const OwnPages& pages_;
  int file_;
  Result<void> flush();

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
