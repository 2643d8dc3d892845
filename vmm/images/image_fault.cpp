#include "vmm/images/image_fault.h"

#include <algorithm>
#include <array>

namespace snug::images {

namespace {

struct Row {
  Fault fault;
  std::string_view name;
  std::string_view sentence;
  std::string_view hint;
};

constexpr std::string_view kNotTrusted = "no tool that builds images makes this; do not trust the image";
constexpr std::string_view kBuildAnew = "build the image without it";
constexpr std::string_view kTooLarge = "use a smaller image";
constexpr std::string_view kPullAgain = "remove the image and pull it again";

constexpr std::array kRows = {
    Row{Fault::kPathEscapes, "path-escapes", "the name leads out of the image", kNotTrusted},
    Row{Fault::kNameTooLong, "name-too-long", "a part of the name has more than 255 bytes", kNotTrusted},
    Row{Fault::kPathTooLong, "path-too-long", "the path is longer than Linux can open", kNotTrusted},
    Row{Fault::kTooDeep, "too-deep", "it lies below too many folders", kNotTrusted},
    Row{Fault::kTooManyLinks, "too-many-links", "its path leads through too many symbolic links",
        kNotTrusted},
    Row{Fault::kBadName, "bad-name", "this is not a file's name", kNotTrusted},
    Row{Fault::kReservedName, "reserved-name", "names that begin with .wh. are reserved for whiteouts",
        kBuildAnew},
    Row{Fault::kBadWhiteout, "bad-whiteout", "the whiteout names nothing that could be hidden", kNotTrusted},
    Row{Fault::kBadLink, "bad-link", "the link leads to nothing", kPullAgain},
    Row{Fault::kBadOwner, "bad-owner", "its owner or group is not a 32-bit number", kBuildAnew},
    Row{Fault::kBadDevice, "bad-device", "Linux has no such device number", kBuildAnew},
    Row{Fault::kBadSize, "bad-size", "its size and its contents differ", kPullAgain},
    Row{Fault::kBadSparseMap, "bad-sparse-map", "its map of holes contradicts itself", kNotTrusted},
    Row{Fault::kXattrTooLarge, "xattr-too-large", "its extended attributes are larger than Linux allows",
        kBuildAnew},
    Row{Fault::kTooManyLayers, "too-many-layers", "the image has too many layers", "squash its layers"},
    Row{Fault::kTooManyEntries, "too-many-entries", "the image has too many files", kTooLarge},
    Row{Fault::kTooMuchMetadata, "too-much-metadata",
        "names, links and attributes of the image are too large", kTooLarge},
    Row{Fault::kTooManyBytes, "too-many-bytes", "the image is too large", kTooLarge},
    Row{Fault::kHeaderTooLarge, "header-too-large", "the header of an entry is too large", kNotTrusted},
    Row{Fault::kUnknownCompression, "unknown-compression",
        "the layer is neither a tar nor one in gzip or zstd", "convert the image's layers to gzip or zstd"},
    Row{Fault::kBrokenCompression, "broken-compression", "the layer's compressed data is broken", kPullAgain},
    Row{Fault::kBrokenArchive, "broken-archive", "the layer's tar is broken", kPullAgain},
    Row{Fault::kWrongDigest, "wrong-digest", "the layer's bytes are not those that its digest names",
        kPullAgain},
    Row{Fault::kCancelled, "cancelled", "cancelled", ""},
};

const Row& row_of(Fault fault) {
  for (const Row& row : kRows)
    if (row.fault == fault) return row;
  return kRows.back();
}

// The bytes of the first character, if a terminal may have it as it is: of ASCII or UTF-8, and no control
// character of either.
size_t printable_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  if (byte(0) < 0x80) return byte(0) >= 0x20 && byte(0) != 0x7f && byte(0) != '"' && byte(0) != '\\' ? 1 : 0;
  const size_t length = byte(0) >= 0xf0 ? 4 : byte(0) >= 0xe0 ? 3 : 2;
  if (byte(0) < 0xc2 || byte(0) > 0xf4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  // U+0080 to U+009F.
  return byte(0) == 0xc2 && byte(1) < 0xa0 ? 0 : length;
}

}  // namespace

std::string_view fault_name(Fault fault) { return row_of(fault).name; }

Error refused(Fault fault, const Place& place, std::string_view detail) {
  const Row& row = row_of(fault);
  std::string where;
  if (place.layer > 0) where = fmt::format("layer {}", place.layer);
  if (!place.entry.empty())
    where += fmt::format("{}\"{}\"", where.empty() ? "" : ", ", shown_name(place.entry));
  return Error{fmt::format("{}{}{} ({})", where, where.empty() ? "" : ": ",
                           detail.empty() ? row.sentence : detail, row.name),
               std::string(row.hint)};
}

std::string shown_name(std::string_view name) {
  constexpr size_t kShown = 200;
  if (name.size() > kShown)
    return shown_name(name.substr(0, kShown / 2)) + "..." + shown_name(name.substr(name.size() - kShown / 2));
  std::string shown;
  while (!name.empty()) {
    const size_t length = printable_length(name);
    if (length > 0)
      shown += name.substr(0, length);
    else
      shown += fmt::format("\\x{:02x}", static_cast<unsigned char>(name[0]));
    name.remove_prefix(std::max<size_t>(length, 1));
  }
  return shown;
}

}  // namespace snug::images
