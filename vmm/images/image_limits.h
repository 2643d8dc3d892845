// What an image may take of the host that reads it. Everything an image says is believed within these bounds
// only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "vmm/base/checked.h"

namespace snug::images {

// Linux's own: NAME_MAX, PATH_MAX without the NUL, XATTR_NAME_MAX, XATTR_SIZE_MAX as EROFS can store it.
constexpr size_t kNameBytes = 255;
constexpr size_t kPathBytes = 4095;
constexpr size_t kXattrNameBytes = 255;
constexpr size_t kXattrValueBytes = 65535;

struct ImageLimits {
  size_t layers = 1000;
  // Entries of all layers, and files and folders that they make.
  uint32_t entries = 1'000'000;
  // Folders above a file.
  uint16_t depth = 512;
  // Symbolic links in the path of an entry, and all parts of the path with those that links put into it.
  uint32_t links_in_path = 40;
  uint32_t parts_of_path = 1024;
  // All extended attributes of one file, names and values.
  size_t xattr_bytes = 64 * kKiB;
  // Names, targets of links, attributes, lists of extents: what is held in memory for all layers.
  uint64_t metadata_bytes = 512 * kMiB;
  // The size that one file states, holes included.
  uint64_t file_bytes = 16 * 1024 * kGiB;
  // File contents of all layers, holes and zeros left out: what the spool takes.
  uint64_t content_bytes = 128 * kGiB;
  // All layers unpacked, zeros included: what is looked at.
  uint64_t unpacked_bytes = 2 * 1024 * kGiB;
  // Headers in front of one entry, with its list of holes.
  uint64_t header_bytes = 8 * kMiB;
  // The image, holes included, and its inodes with what is behind them.
  uint64_t image_bytes = 1024 * kGiB;
  uint64_t image_metadata_bytes = kGiB;
};

}  // namespace snug::images
