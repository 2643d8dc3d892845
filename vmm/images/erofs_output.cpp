#include "vmm/images/erofs_output.h"

#include <unistd.h>

#include <algorithm>
#include <span>
#include <vector>

#include "vmm/base/checked.h"
#include "vmm/images/image_fault.h"

namespace snug::images {

namespace {

constexpr size_t kBuffer = kMiB;
constexpr uint64_t kReportEvery = 4 * kMiB;

}  // namespace

ErofsOutput::ErofsOutput(int image, int spool, uint64_t total, const ProgressCallback& progress)
    : image_(image), spool_(spool), progress_(progress) {
  state_.stage = Stage::kWritingImage;
  state_.total = total;
}

Result<void> ErofsOutput::write(uint64_t offset, std::string_view bytes) {
  const uint64_t end = buffer_offset_ + buffer_.size();
  if (!buffer_.empty() && (offset - end > kPageSize || buffer_.size() >= kBuffer)) SNUG_TRY(flush());
  if (buffer_.empty())
    buffer_offset_ = offset;
  else
    buffer_.append(offset - end, '\0');
  buffer_.append(bytes);
  return {};
}

Result<void> ErofsOutput::flush() {
  if (buffer_.empty()) return {};
  hash_.add(buffer_offset_);
  hash_.add(std::as_bytes(std::span(buffer_)));
  SNUG_TRY(put(buffer_offset_, buffer_));
  SNUG_TRY(advance(buffer_.size()));
  buffer_.clear();
  return {};
}

Result<void> ErofsOutput::put(uint64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(image_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "writing the image");
    bytes.remove_prefix(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return {};
}

Result<void> ErofsOutput::copy(uint64_t offset, uint64_t spool_offset, uint64_t length) {
  std::vector<char> bytes;
  while (length > 0) {
    const size_t count = static_cast<size_t>(std::min(length, kReportEvery));
    ssize_t copied = -1;
    if (shares_) {
      auto from = static_cast<off64_t>(spool_offset);
      auto to = static_cast<off64_t>(offset);
      copied = ::copy_file_range(spool_, &from, image_, &to, count, 0);
      if (copied < 0 && errno == EINTR) continue;
      if (copied < 0 && (errno == ENOSPC || errno == EIO || errno == EFBIG || errno == EDQUOT))
        return fail_errno(errno, "writing the image");
      // Two file systems, or one that cannot.
      if (copied <= 0) shares_ = false;
    }
    if (copied <= 0) {
      bytes.resize(count);
      copied = ::pread(spool_, bytes.data(), count, static_cast<off_t>(spool_offset));
      if (copied < 0 && errno == EINTR) continue;
      if (copied < 0) return fail_errno(errno, "reading the contents of the image");
      if (copied == 0) return fail("the contents of the image ended too early");
      SNUG_TRY(put(offset, std::string_view(bytes.data(), static_cast<size_t>(copied))));
    }
    offset += static_cast<uint64_t>(copied);
    spool_offset += static_cast<uint64_t>(copied);
    length -= static_cast<uint64_t>(copied);
    SNUG_TRY(advance(static_cast<uint64_t>(copied)));
  }
  return {};
}

Result<void> ErofsOutput::advance(uint64_t bytes) {
  state_.done += bytes;
  since_report_ += bytes;
  if (since_report_ < kReportEvery) return {};
  since_report_ = 0;
  if (progress_ && !progress_(state_)) return tl::unexpected(refused(Fault::kCancelled, {}));
  return {};
}

}  // namespace snug::images
