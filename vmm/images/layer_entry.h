// One entry of a layer's tar, copied out of it and checked by itself: numbers in range, names and attributes
// of a length that Linux knows. What it does to the image is said in layer_merge.h.
//
// Names are bytes, whatever the locale.
// Thread: any.
#pragma once

#include <string>
#include <string_view>

#include "vmm/base/result.h"
#include "vmm/images/file_tree.h"
#include "vmm/images/image_fault.h"
#include "vmm/images/image_limits.h"

struct archive_entry;

namespace snug::images {

struct LayerEntry {
  std::string path;  // as the tar has it
  bool hard_link = false;
  std::string link_path;  // of a hard link: another entry's path
  Inode inode;            // all else
};

// The last part of a path, without slashes behind it.
std::string_view base_name(std::string_view path);
// A name that hides others, and is no file.
bool is_whiteout(std::string_view path);

// Without contents. Errors: named, with `layer` and the entry's path.
Result<LayerEntry> layer_entry_from(::archive_entry* entry, size_t layer, const ImageLimits& limits);

}  // namespace snug::images
