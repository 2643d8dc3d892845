#include "devices/virtio/block/disk_image.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "vmm/base/checked.h"
#include "vmm/base/endian.h"
#include "vmm/base/file_status.h"
#include "vmm/base/sparse_file.h"

namespace snug {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kSector = 512;
constexpr uint64_t kAtOnce = uint64_t{1} << 20;
constexpr std::array<char, 8> kMagic{'s', 'n', 'u', 'g', 'o', 'v', 'e', 'r'};

// What a guest may change between two looks without another one being worth it, and how many looks there are:
// one that writes faster than its disk is copied is stopped all the same.
constexpr uint64_t kFewBytes = uint64_t{8} << 20;
constexpr int kRoundsMax = 5;

// Bytes of a map, whole words.
uint64_t map_bytes(uint64_t size) {
  constexpr uint64_t kWordBits = 64;
  const uint64_t sectors = (size + kSector - 1) / kSector;
  return (sectors + kWordBits - 1) / kWordBits * sizeof(uint64_t);
}

std::array<std::byte, kPage> overlay_head(uint64_t size) {
  std::array<std::byte, kPage> head{};
  std::memcpy(head.data(), kMagic.data(), kMagic.size());
  store_le(std::span<std::byte>(head).subspan(8, 4), kOverlayFormat);
  store_le(std::span<std::byte>(head).subspan(16, 8), size);
  return head;
}

Result<void> check_overlay_head(int image, uint64_t size) {
  std::array<std::byte, kPage> head{};
  const uint64_t at = align_up(size, kPage);
  struct stat status {};
  if (!file_status(image, status)) return fail_errno(errno, "stat");
  const bool fits =
      S_ISREG(status.st_mode) && static_cast<uint64_t>(status.st_size) == at + kPage + map_bytes(size);
  if (fits) SNUG_TRY(read_at(image, head, at));
  if (!fits || std::memcmp(head.data(), kMagic.data(), kMagic.size()) != 0)
    return fail("it is no overlay of a disk of {} bytes", size);
  const uint64_t format = load_le(std::span<const std::byte>(head).subspan(8, 4));
  if (format != kOverlayFormat)
    return fail("an overlay of format {}, and this snug knows format {}", format, kOverlayFormat);
  if (head != overlay_head(size)) return fail("it is no overlay of a disk of {} bytes", size);
  return {};
}

}  // namespace

DiskImageWriter::DiskImageWriter(const DiskSource& source, UniqueFd file, const std::atomic<bool>& cancelled)
    : source_(source), file_(std::move(file)), cancelled_(&cancelled) {}

DiskImageWriter::~DiskImageWriter() {
  if (!file_) return;
  const std::lock_guard guard(*source_.mutex);
  source_.device->note_changes(false);
}

// In the place of all that the file has.
bool DiskImageWriter::clone() { return share_blocks(source_.file, file_.get()); }

Result<void> DiskImageWriter::copy_data(uint64_t size) {
  for (uint64_t at = 0; at < size;) {
    const FileRange data = next_data(source_.file, at, size);
    SNUG_TRY(copy(data.from, data.to));
    at = data.to;
  }
  return {};
}

Result<void> DiskImageWriter::copy(uint64_t from, uint64_t to) {
  buffer_.resize(kAtOnce);
  while (from < to) {
    if (*cancelled_) return fail("cancelled");
    const auto bytes = std::span(buffer_).first(std::min(kAtOnce, to - from));
    SNUG_TRY(with_context(read_at(source_.file, bytes, from), "the disk"));
    SNUG_TRY(with_context(put(bytes, from), "the copy of a disk"));
    from += bytes.size();
  }
  return {};
}

// What is zero becomes no data: a hole, that is, or the end of what an earlier look has found there.
Result<void> DiskImageWriter::put(std::span<const std::byte> bytes, uint64_t offset) {
  while (!bytes.empty()) {
    const bool zero = is_all_zero(bytes.first(std::min<uint64_t>(kPage, bytes.size())));
    uint64_t length = 0;
    while (length < bytes.size()) {
      const auto page = bytes.subspan(length, std::min<uint64_t>(kPage, bytes.size() - length));
      if (is_all_zero(page) != zero) break;
      length += page.size();
    }
    const auto part = bytes.first(length);
    if (!zero) {
      written_ += length;
      SNUG_TRY(write_at(file_.get(), part, offset));
    } else if (offset < copied_to_ &&
               ::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                           static_cast<off_t>(offset), static_cast<off_t>(length)) != 0) {
      SNUG_TRY(write_at(file_.get(), part, offset));
    }
    bytes = bytes.subspan(length);
    offset += length;
  }
  return {};
}

Result<void> DiskImageWriter::copy_again(const BlockChanges& changes, uint64_t size) {
  return changes.for_each<Result<void>>([&](uint64_t offset, uint64_t length) -> Result<void> {
    return copy(offset, std::min(offset + length, std::max(size, offset)));
  });
}

Result<void> DiskImageWriter::write_ahead() {
  uint64_t size = 0;
  {
    const std::lock_guard guard(*source_.mutex);
    size = source_.device->size();
    source_.device->note_changes(true);
  }
  if (clone()) {
    stage_ = Stage::kShared;
    const std::lock_guard guard(*source_.mutex);
    source_.device->note_changes(false);
    return {};
  }
  SNUG_TRY(copy_data(size));
  copied_to_ = size;
  stage_ = Stage::kCopied;
  for (int round = 0; round < kRoundsMax; ++round) {
    BlockChanges changes;
    {
      const std::lock_guard guard(*source_.mutex);
      changes = source_.device->take_changes();
    }
    SNUG_TRY(copy_again(changes, size));
    if (changes.bytes() <= kFewBytes) break;
  }
  return {};
}

Result<void> DiskImageWriter::write_rest() {
  const uint64_t size = source_.device->size();
  if (stage_ == Stage::kCopied) {
    SNUG_TRY(copy_again(source_.device->take_changes(), size));
    // It has become larger meanwhile.
    SNUG_TRY(copy(std::min(copied_to_, size), size));
  } else if (!clone()) {
    // What shared its blocks a moment ago does not any more: the disk is full, as a rule.
    if (stage_ == Stage::kShared) return fail_errno(errno, "share the blocks of the disk");
    SNUG_TRY(copy_data(size));
  }
  if (::ftruncate(file_.get(), static_cast<off_t>(size)) != 0) return fail_errno(errno, "the copy of a disk");
  return source_.written != nullptr ? write_map(size) : Result<void>{};
}

Result<void> DiskImageWriter::write_map(uint64_t size) {
  const uint64_t at = align_up(size, kPage);
  if (::ftruncate(file_.get(), static_cast<off_t>(at + kPage + map_bytes(size))) != 0)
    return fail_errno(errno, "the copy of a disk");
  const auto head = overlay_head(size);
  SNUG_TRY(with_context(write_at(file_.get(), head, at), "the copy of a disk"));
  const std::span<const std::byte> bits = source_.written->bits().first(map_bytes(size));
  for (uint64_t offset = 0; offset < bits.size(); offset += kPage) {
    const auto part = bits.subspan(offset, std::min(kPage, bits.size() - offset));
    if (!is_all_zero(part))
      SNUG_TRY(with_context(write_at(file_.get(), part, at + kPage + offset), "the copy of a disk"));
  }
  return {};
}

Result<void> read_overlay_image(int image, uint64_t size, int overlay, SectorMap& written) {
  SNUG_TRY(check_overlay_head(image, size));
  SNUG_TRY(copy_contents(image, overlay, size));
  const uint64_t start = align_up(size, kPage) + kPage;
  const uint64_t end = start + map_bytes(size);
  for (uint64_t at = start; at < end;) {
    // Whole words, wherever the file's data begins and ends.
    const FileRange data = next_data(image, at, end);
    for (at = (data.from - start) / kPage * kPage + start; at < data.to;) {
      const auto part = written.bits().subspan(at - start, std::min(kPage, end - at));
      SNUG_TRY(read_at(image, part, at));
      at += part.size();
    }
    at = std::max(at, data.to);
  }
  written.trim(size / kSector + (size % kSector != 0 ? 1 : 0));
  return {};
}

}  // namespace snug
