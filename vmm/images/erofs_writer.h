// Writes a tree as an EROFS image: read-only, without compression, file contents on pages of their own so
// that a guest can map them (DAX). The same tree and contents make the same bytes.
//
// Thread: one at a time. Memory: the tree, and some 100 bytes for each inode.
#pragma once

#include <cstdint>

#include "vmm/base/result.h"
#include "vmm/images/erofs_layout.h"
#include "vmm/images/erofs_output.h"
#include "vmm/images/file_tree.h"
#include "vmm/images/image_limits.h"
#include "vmm/images/progress.h"

namespace snug::images {

struct ErofsSummary {
  uint64_t bytes = 0;  // of the image, holes included
  uint64_t inodes = 0;
};

class ErofsWriter {
 public:
  // `spool`: what the tree's extents point into. The tree stays as it is until write() is back.
  ErofsWriter(const FileTree& tree, int spool, const ImageLimits& limits, ProgressCallback progress = {});

  // Into a regular file, which becomes the image and nothing else. Errors: larger than allowed, the host's
  // disk, cancelled; the file then holds a part of an image without a superblock.
  Result<ErofsSummary> write(int image);

 private:
  Result<void> write_inodes(const ErofsLayout& layout, ErofsOutput& out) const;
  Result<void> write_folders(const ErofsLayout& layout, ErofsOutput& out) const;
  Result<void> write_contents(const ErofsLayout& layout, ErofsOutput& out) const;
  Result<void> write_superblock(const ErofsLayout& layout, ErofsOutput& out) const;

  const FileTree& tree_;
  int spool_;
  ImageLimits limits_;
  ProgressCallback progress_;
};

}  // namespace snug::images
