// Where everything of a tree lies in its EROFS image, before a byte of it is written:
//
//   block 0             the superblock
//   from block 1        inodes in the order of the tree, each with its attributes and, if it fits, its
//   contents' last part behind them         contents of folders and long links, then those of files, each
//   from a block of its own
//
// Thread: one at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/images/erofs_chunks.h"
#include "vmm/images/file_tree.h"
#include "vmm/images/image_limits.h"

namespace snug::images {

struct ErofsPlace {
  uint64_t offset = 0;  // of the inode in the image
  uint64_t size = 0;    // of the contents
  uint32_t xattr_bytes = 0;
  uint32_t inline_bytes = 0;  // of the contents, behind the inode
  uint64_t blocks = 0;        // of the contents that lie elsewhere
  uint64_t first_block = 0;
  uint16_t layout = 0;
  ChunkPlan chunks;
  uint32_t links = 0;
  // An inode whose contents are the same and stored in its place; itself where there is none.
  InodeId stored_by = 0;
};

class ErofsLayout {
 public:
  // Errors: the image would be larger than `limits` and EROFS allow; the spool cannot be read.
  // `spool`: where the tree's extents are; contents that look alike are compared.
  static Result<ErofsLayout> plan(const FileTree& tree, int spool, const ImageLimits& limits);

  // Inodes in the order in which they lie in the image; the root is the first.
  const std::vector<InodeId>& order() const { return order_; }
  const ErofsPlace& place(InodeId id) const { return places_[id]; }
  uint64_t nid(InodeId id) const;
  uint64_t metadata_end() const { return metadata_end_; }
  uint64_t blocks() const { return blocks_; }

 private:
  explicit ErofsLayout(const FileTree& tree) : places_(tree.inode_count()) {}
  void collect(const FileTree& tree);
  void place_inode(const FileTree& tree, InodeId id, uint64_t& offset);
  Result<void> share_contents(const FileTree& tree, int spool);

  std::vector<InodeId> order_;
  std::vector<ErofsPlace> places_;
  uint64_t metadata_end_ = 0;
  uint64_t blocks_ = 0;
};

// The contents of a folder with the numbers that `layout` gives, or with none of them for their size alone.
class ErofsFolder;
ErofsFolder erofs_folder_of(const FileTree& tree, InodeId folder, const ErofsLayout* layout);

}  // namespace snug::images
