// How a file with holes is cut into chunks (EROFS, Linux 5.15): all of one size, each a piece of blocks or a
// hole. Thread: any.
#pragma once

#include <cstdint>
#include <vector>

#include "vmm/images/file_tree.h"

namespace snug::images {

struct ChunkPlan {
  unsigned bits = 0;    // a chunk has 4096 << bits bytes
  uint64_t chunks = 0;  // of the whole file
  uint64_t blocks = 0;  // of those that are not holes; the last one ends with the file
};

// The size of chunks that makes the image smallest: small ones need a long table, large ones hold zeros.
// `size` > 0.
ChunkPlan plan_chunks(const std::vector<Extent>& extents, uint64_t size);

// The block that each chunk begins at, counted from the file's first; erofs::kNoBlock for holes. Goes on
// where it stopped, a bounded number of chunks at a time, for tables that are long.
class ChunkTable {
 public:
  ChunkTable(const std::vector<Extent>& extents, uint64_t size, const ChunkPlan& plan)
      : extents_(extents), size_(size), plan_(plan) {}
  bool done() const { return chunk_ == plan_.chunks; }
  uint32_t next();

 private:
  const std::vector<Extent>& extents_;
  uint64_t size_;
  ChunkPlan plan_;
  uint64_t chunk_ = 0;
  size_t extent_ = 0;
  uint64_t block_ = 0;
};

}  // namespace snug::images
