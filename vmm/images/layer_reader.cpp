#include "vmm/images/layer_reader.h"

#include <archive.h>
#include <archive_entry.h>

namespace snug::images {

namespace {

// What an inode and its name take besides the bytes of names.
constexpr uint64_t kInodeBytes = 256;

}  // namespace

LayerReader::LayerReader(LayerStream& stream, Spool& spool, const ImageLimits& limits, ImageUse& use,
                         size_t layer, std::function<Result<void>()> tick)
    : stream_(stream),
      spool_(spool),
      limits_(limits),
      use_(use),
      layer_(layer),
      tick_(std::move(tick)),
      archive_(::archive_read_new()) {
  if (archive_ == nullptr) {
    error_ = Error{"libarchive: out of memory", {}};
    return;
  }
  ::archive_read_support_format_tar(archive_);
  in_header_ = true;
  ::archive_read_open2(archive_, this, nullptr, &LayerReader::on_read, nullptr, nullptr);
}

LayerReader::~LayerReader() {
  if (archive_ != nullptr) ::archive_read_free(archive_);
}

ssize_t LayerReader::on_read(::archive* archive, void* context, const void** bytes) {
  auto* const self = static_cast<LayerReader*>(context);
  auto more = self->more();
  if (!more) {
    self->error_ = std::move(more).error();
    ::archive_set_error(archive, EIO, "%s", "the layer cannot be read");
    return -1;
  }
  *bytes = more->data();
  return static_cast<ssize_t>(more->size());
}

Result<std::span<const std::byte>> LayerReader::more() {
  if (tick_) SNUG_TRY(tick_());
  const auto bytes = SNUG_TRY(stream_.next());
  stream_ended_ = bytes.empty();
  use_.unpacked_bytes += bytes.size();
  if (use_.unpacked_bytes > limits_.unpacked_bytes) return tl::unexpected(refused(Fault::kTooManyBytes, {}));
  if (in_header_) header_bytes_ += bytes.size();
  // A map of holes may be as long as the file: libarchive keeps all of it.
  if (header_bytes_ > limits_.header_bytes) return tl::unexpected(refused(Fault::kHeaderTooLarge, {}));
  return bytes;
}

Error LayerReader::broken(std::string_view entry) {
  // What the stream said is the reason for what libarchive says.
  if (error_) return std::move(*error_).with_context(fmt::format("layer {}", layer_));
  const char* why = archive_ != nullptr ? ::archive_error_string(archive_) : nullptr;
  return refused(
      Fault::kBrokenArchive, {layer_, entry},
      fmt::format("the layer's tar is broken ({})", why != nullptr ? shown_name(why) : "it is not one"));
}

Result<void> LayerReader::check_header(int status) {
  if (status == ARCHIVE_OK) return {};
  // A name that the locale does not have, which stays as it is: libarchive's number for it, and for nothing
  // else that it goes on after.
  if (status == ARCHIVE_WARN && ::archive_errno(archive_) == EILSEQ) return {};
  return tl::unexpected(broken({}));
}

Result<std::optional<LayerEntry>> LayerReader::next() {
  if (error_) return tl::unexpected(broken({}));
  header_bytes_ = 0;
  in_header_ = true;
  ::archive_entry* header = nullptr;
  const int status = unfilled_ ? ARCHIVE_EOF : ::archive_read_next_header(archive_, &header);
  in_header_ = false;
  if (status == ARCHIVE_EOF) {
    // The checksum of a compressed stream is at its end.
    for (auto rest = more(); !rest || !rest->empty(); rest = more())
      if (!rest) return tl::unexpected(std::move(rest).error().with_context(fmt::format("layer {}", layer_)));
    return std::optional<LayerEntry>{};
  }
  SNUG_TRY(check_header(status));
  if (++use_.entries > limits_.entries) return tl::unexpected(refused(Fault::kTooManyEntries, {layer_, {}}));
  LayerEntry entry = SNUG_TRY(layer_entry_from(header, layer_, limits_));
  if (entry.inode.is_file()) SNUG_TRY(read_contents(entry));
  // Not when the next header is asked for: what is skipped is no part of it.
  if (!unfilled_ && ::archive_read_data_skip(archive_) < ARCHIVE_WARN)
    return tl::unexpected(broken(entry.path));
  use_.metadata_bytes += kInodeBytes + entry.path.size() + entry.link_path.size() +
                         entry.inode.target.size() + entry.inode.extents.size() * sizeof(Extent);
  for (const Xattr& xattr : entry.inode.xattrs)
    use_.metadata_bytes += sizeof(Xattr) + xattr.name.size() + xattr.value.size();
  if (use_.metadata_bytes > limits_.metadata_bytes)
    return tl::unexpected(refused(Fault::kTooMuchMetadata, {layer_, entry.path}));
  return std::optional<LayerEntry>(std::move(entry));
}

Result<void> LayerReader::read_contents(LayerEntry& entry) {
  const Place place{layer_, entry.path};
  spool_.begin();
  uint64_t end = 0;
  for (;;) {
    const void* bytes = nullptr;
    size_t size = 0;
    la_int64_t offset = 0;
    const int status = ::archive_read_data_block(archive_, &bytes, &size, &offset);
    if (status == ARCHIVE_EOF) break;
    if (status != ARCHIVE_OK) {
      unfilled_ = stream_ended_ && !error_ && end > 0 && end == entry.inode.size;
      if (unfilled_) break;
      return tl::unexpected(broken(entry.path));
    }
    if (size == 0) continue;
    const uint64_t at = static_cast<uint64_t>(offset);
    if (offset < 0 || at < end || !range_within(at, size, entry.inode.size))
      return tl::unexpected(refused(Fault::kBadSparseMap, place));
    end = at + size;
    SNUG_TRY(with_context(spool_.write(at, {static_cast<const std::byte*>(bytes), size}), "the image"));
    if (spool_.stored() > limits_.content_bytes) return tl::unexpected(refused(Fault::kTooManyBytes, place));
    if (use_.metadata_bytes + spool_.extents() * sizeof(Extent) > limits_.metadata_bytes)
      return tl::unexpected(refused(Fault::kTooMuchMetadata, place));
  }
  auto contents = SNUG_TRY(spool_.finish(entry.inode.size));
  entry.inode.extents = std::move(contents.extents);
  entry.inode.hash = contents.hash;
  return {};
}

}  // namespace snug::images
