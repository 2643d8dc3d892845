// Files with holes: where their data is, and copies that have the same holes. Positions are told with each
// call, in bytes; the place where a file stands is of no account.
//
// Thread: any; lseek(2) moves that place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "vmm/base/result.h"

namespace snug {

struct FileRange {
  uint64_t from = 0;
  uint64_t to = 0;
};

// The first piece of data from `offset` on, below `end`; {end, end}: there is none. All of it where the file
// does not tell.
FileRange next_data(int file, uint64_t offset, uint64_t end);

// What lies behind the file's end is read as zeros.
Result<void> read_at(int file, std::span<std::byte> out, uint64_t offset);
Result<void> write_at(int file, std::span<const std::byte> bytes, uint64_t offset);

// `bytes` is not empty.
bool is_all_zero(std::span<const std::byte> bytes);

// Whether `to` now has the contents of `from` in the place of its own, with the same blocks. False, with
// errno: the file system cannot, or they are on two.
bool share_blocks(int from, int to);
// `to` is empty: it gets the first `size` bytes of `from`, by shared blocks where that can be.
Result<void> copy_contents(int from, int to, uint64_t size);

}  // namespace snug
