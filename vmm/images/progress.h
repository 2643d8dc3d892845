// How far an image is, and the wish to end it.
//
// Thread: the callback runs on the thread that builds, every few MiB at most. It may not call back into the
// builder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace snug::images {

enum class Stage { kReadingLayers, kWritingImage };

struct Progress {
  Stage stage = Stage::kReadingLayers;
  size_t layer = 0;  // from 1, while layers are read
  size_t layers = 0;
  // Bytes of all layers as they are stored, then bytes of the image. The total is 0 where it is not known.
  uint64_t done = 0;
  uint64_t total = 0;
};

// False: the work ends with the error "cancelled". May be empty.
using ProgressCallback = std::function<bool(const Progress&)>;

}  // namespace snug::images
