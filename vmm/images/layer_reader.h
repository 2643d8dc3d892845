// Reads the entries of a layer's tar, one after the other, by libarchive: PAX, GNU and older tars, long
// names, sparse files. Contents of files are in the spool when an entry is given.
//
// Memory that a layer can ask for is bounded: headers in front of an entry, what one entry says, contents
// (ImageLimits). Thread: one at a time; the callback runs on it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "vmm/base/result.h"
#include "vmm/images/image_limits.h"
#include "vmm/images/layer_entry.h"
#include "vmm/images/layer_stream.h"
#include "vmm/images/spool.h"

struct archive;

namespace snug::images {

// What all layers of an image take together.
struct ImageUse {
  uint64_t entries = 0;
  uint64_t unpacked_bytes = 0;
  uint64_t metadata_bytes = 0;
};

class LayerReader {
 public:
  // `layer` counts from 1. `tick` is called every few hundred KiB of the tar; its error ends the reading.
  LayerReader(LayerStream& stream, Spool& spool, const ImageLimits& limits, ImageUse& use, size_t layer,
              std::function<Result<void>()> tick);
  ~LayerReader();
  LayerReader(const LayerReader&) = delete;
  LayerReader& operator=(const LayerReader&) = delete;

  // The next entry, checked by itself; nothing at the end, when the whole stream has been read and is whole.
  // Errors: named (image_fault.h), with the entry's path where it has one; those of stream and spool.
  Result<std::optional<LayerEntry>> next();

 private:
  static ssize_t on_read(::archive* archive, void* self, const void** bytes);
  Result<std::span<const std::byte>> more();
  Result<void> check_header(int status);
  Result<void> read_contents(LayerEntry& entry);
  Error broken(std::string_view entry);

  LayerStream& stream_;
  Spool& spool_;
  const ImageLimits& limits_;
  ImageUse& use_;
  size_t layer_;
  std::function<Result<void>()> tick_;
  ::archive* archive_;
  std::optional<Error> error_;  // of the stream, while libarchive passes it on
  uint64_t header_bytes_ = 0;   // read since the last entry's contents ended
  bool in_header_ = false;
  bool stream_ended_ = false;
  // The tar ends with the contents of its last file, which do not fill a block: `umoci insert` writes such.
  bool unfilled_ = false;
};

}  // namespace snug::images
