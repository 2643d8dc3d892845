#include "vmm/images/spool.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>

#include "vmm/base/checked.h"

namespace snug::images {

namespace {

constexpr size_t kWindow = 256 * 1024;

bool all_zero(std::span<const std::byte> bytes) {
  return bytes.empty() ||
         (bytes[0] == std::byte{0} && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

Result<void> write_at(int fd, std::span<const std::byte> bytes, uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return fail_errno(errno, "storing the contents of the image");
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
  return {};
}

}  // namespace

Result<UniqueFd> Spool::make_file(const std::string& folder) {
  const int fd = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0) return UniqueFd(fd);
  if (errno != EOPNOTSUPP && errno != EISDIR) return fail_errno(errno, "making a file in {}", folder);
  // A file system without files that have no name.
  std::string name = folder + "/.spool-XXXXXX";
  UniqueFd file(::mkostemp(name.data(), O_CLOEXEC));
  if (!file) return fail_errno(errno, "making a file in {}", folder);
  ::unlink(name.c_str());
  return file;
}

Spool::Spool(UniqueFd file) : file_(std::move(file)), window_(kWindow) {}

void Spool::begin() {
  window_offset_ = 0;
  window_used_ = 0;
  extents_.clear();
  hash_ = {};
}

Result<void> Spool::write(uint64_t offset, std::span<const std::byte> bytes) {
  if (bytes.empty()) return {};
  if (offset < window_offset_ + window_used_) return fail("contents that overlap");
  if (offset - window_offset_ >= kWindow) {
    SNUG_TRY(flush());
    window_offset_ = align_down(offset, kPageSize);
  }
  while (!bytes.empty()) {
    const size_t start = static_cast<size_t>(offset - window_offset_);
    const size_t count = std::min(bytes.size(), kWindow - start);
    std::fill(window_.begin() + static_cast<ptrdiff_t>(window_used_),
              window_.begin() + static_cast<ptrdiff_t>(start), std::byte{0});
    std::copy_n(bytes.begin(), count, window_.begin() + static_cast<ptrdiff_t>(start));
    window_used_ = start + count;
    offset += count;
    bytes = bytes.subspan(count);
    if (window_used_ == kWindow) SNUG_TRY(flush());
  }
  return {};
}

// Stores what the window holds, which begins anew behind it.
Result<void> Spool::flush() {
  const size_t pages = (window_used_ + kPageSize - 1) / kPageSize;
  std::fill(window_.begin() + static_cast<ptrdiff_t>(window_used_),
            window_.begin() + static_cast<ptrdiff_t>(pages * kPageSize), std::byte{0});
  const std::span<const std::byte> window(window_.data(), pages * kPageSize);
  const auto page = [&](size_t i) { return window.subspan(i * kPageSize, kPageSize); };
  for (size_t i = 0; i < pages;) {
    if (all_zero(page(i))) {
      ++i;
      continue;
    }
    size_t end = i;
    for (; end < pages && !all_zero(page(end)); ++end) {
      hash_.add(window_offset_ / kPageSize + end);
      hash_.add(page(end));
    }
    SNUG_TRY(store(window_offset_ + i * kPageSize, window.subspan(i * kPageSize, (end - i) * kPageSize)));
    i = end;
  }
  window_offset_ += window_used_;
  window_used_ = 0;
  return {};
}

Result<void> Spool::store(uint64_t file_offset, std::span<const std::byte> pages) {
  if (extents_.empty() ||
      file_offset - (extents_.back().file_offset + extents_.back().length) >= kSmallestHole)
    extents_.push_back({file_offset, end_, 0});
  Extent& last = extents_.back();
  // A small hole of the file is one of the spool.
  const uint64_t at = last.spool_offset + (file_offset - last.file_offset);
  SNUG_TRY(write_at(file_.get(), pages, at));
  last.length = file_offset + pages.size() - last.file_offset;
  end_ = at + pages.size();
  stored_ += pages.size();
  return {};
}

Result<Spool::Contents> Spool::finish(uint64_t size) {
  SNUG_TRY(flush());
  hash_.add(size);
  if (!extents_.empty()) {
    Extent& last = extents_.back();
    last.length = std::min(last.length, size - last.file_offset);
  }
  extents_.shrink_to_fit();
  return Contents{std::move(extents_), hash_.value()};
}

}  // namespace snug::images
