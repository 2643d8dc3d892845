#include "vmm/images/erofs_chunks.h"

#include <algorithm>

#include "vmm/images/erofs_format.h"

namespace snug::images {

namespace {

using erofs::kBlock;

// A chunk of a gigabyte: 16 TiB take a table of 64 KiB.
constexpr unsigned kMostBits = 18;

uint64_t blocks_of(uint64_t bytes) { return (bytes + kBlock - 1) / kBlock; }

// Chunks that any extent reaches into, as blocks.
uint64_t blocks_with(const std::vector<Extent>& extents, uint64_t size, uint64_t chunk) {
  uint64_t blocks = 0;
  uint64_t done = 0;  // the first chunk that is not counted yet
  for (const Extent& extent : extents) {
    const uint64_t first = std::max(done, extent.file_offset / chunk);
    const uint64_t end = (extent.file_offset + extent.length + chunk - 1) / chunk;
    if (end <= first) continue;
    blocks += blocks_of(std::min(end * chunk, size) - first * chunk);
    done = end;
  }
  return blocks;
}

}  // namespace

ChunkPlan plan_chunks(const std::vector<Extent>& extents, uint64_t size) {
  ChunkPlan best;
  uint64_t best_cost = UINT64_MAX;
  for (unsigned bits = 0; bits <= kMostBits; ++bits) {
    const uint64_t chunk = kBlock << bits;
    const uint64_t chunks = (size + chunk - 1) / chunk;
    const uint64_t blocks = blocks_with(extents, size, chunk);
    const uint64_t cost = chunks * erofs::kChunkEntry + blocks * kBlock;
    if (cost >= best_cost) continue;
    best_cost = cost;
    best = {bits, chunks, blocks};
  }
  return best;
}

uint32_t ChunkTable::next() {
  const uint64_t chunk = kBlock << plan_.bits;
  const uint64_t start = chunk_++ * chunk;
  const uint64_t end = std::min(start + chunk, size_);
  while (extent_ < extents_.size() && extents_[extent_].file_offset + extents_[extent_].length <= start)
    ++extent_;
  if (extent_ == extents_.size() || extents_[extent_].file_offset >= end) return erofs::kNoBlock;
  const uint64_t block = block_;
  block_ += blocks_of(end - start);
  return static_cast<uint32_t>(block);
}

}  // namespace snug::images
