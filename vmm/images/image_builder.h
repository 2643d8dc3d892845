// The layers of a container image in, the image of a root file system out. Nothing is unpacked as files on
// the host, and nothing needs a privilege: contents go to a spool, the rest is kept in memory, and both are
// written as EROFS.
//
// Thread: one at a time, any; it may take minutes. The same layers, packed in whatever way, make the same
// bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/images/erofs_writer.h"
#include "vmm/images/image_limits.h"
#include "vmm/images/progress.h"

namespace snug::images {

// A layer: a tar, plain or in gzip or zstd, read from where the descriptor stands.
struct Layer {
  int fd = -1;
  uint64_t stored_bytes = 0;  // for progress; 0 where it is not known
  std::string digest = {};    // "sha256:...", of the bytes as they are stored; empty: not checked
};

struct ImageJob {
  std::span<const Layer> layers;  // from the lowest on
  UniqueFd spool;                 // an empty file with room for the contents (Spool::create)
  int image = -1;                 // a regular file, which becomes the image
  ImageLimits limits;
  ProgressCallback progress;
};

// Errors: named (image_fault.h) with layer and entry; the host's. The image is then not to be used: it has no
// superblock.
Result<ErofsSummary> build_image(ImageJob job);

}  // namespace snug::images
