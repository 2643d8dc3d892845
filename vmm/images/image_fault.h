// Why an image is refused: a name for each reason, the place, and words for the person who has the image.
// Thread: any.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "vmm/base/result.h"

namespace snug::images {

enum class Fault {
  kPathEscapes,
  kNameTooLong,
  kPathTooLong,
  kTooDeep,
  kTooManyLinks,
  kBadName,
  kReservedName,
  kBadWhiteout,
  kBadLink,
  kBadOwner,
  kBadDevice,
  kBadSize,
  kBadSparseMap,
  kXattrTooLarge,
  kTooManyLayers,
  kTooManyEntries,
  kTooMuchMetadata,
  kTooManyBytes,
  kHeaderTooLarge,
  kUnknownCompression,
  kBrokenCompression,
  kBrokenArchive,
  kWrongDigest,
  kCancelled,
};

// "path-escapes": what an error says in brackets, and tests look for.
std::string_view fault_name(Fault fault);

// Where in an image: its layers count from 1. Either may be missing (0, "").
struct Place {
  size_t layer = 0;
  std::string_view entry;
};

// "layer 2, \"a/../b\": the name leads out of the image (path-escapes)", with what to do about it. `detail`
// replaces the fault's own sentence.
Error refused(Fault fault, const Place& place, std::string_view detail = {});

// A name as it can be shown on a terminal: other than printable bytes as \xNN, the middle of a long one left
// out.
std::string shown_name(std::string_view name);

}  // namespace snug::images
