#include <algorithm>

#include "boot/elf.h"
#include "vmm/base/checked.h"

namespace snug::boot {
namespace {

constexpr size_t kTailMax = 16 * kMiB;

}  // namespace

Result<void> ElfSink::write(std::span<const std::byte> bytes) {
  if (image_) {
    SNUG_TRY(place(position_, bytes));
    position_ += bytes.size();
    return {};
  }
  // Almost always the first write brings all headers, and none of it is kept here.
  if (head_.empty() && bytes.size() >= kElfHeadMax) {
    SNUG_TRY(start_image(bytes));
    SNUG_TRY(place(0, bytes));
    position_ = bytes.size();
    return {};
  }
  head_.insert(head_.end(), bytes.begin(), bytes.end());
  if (head_.size() < kElfHeadMax) return {};
  return start_from_head();
}

Result<void> ElfSink::start_from_head() {
  SNUG_TRY(start_image(head_));
  SNUG_TRY(place(0, head_));
  position_ = head_.size();
  head_ = {};
  return {};
}

Result<void> ElfSink::start_image(std::span<const std::byte> head) {
  auto image = parse_elf(head);
  is_kernel_ = image && image->is_64;
  if (!image) return tl::unexpected(std::move(image.error()));
  if (!is_kernel_) return fail("a 32-bit ELF file");
  const uint64_t end = std::max(image->end(), checked_add(image->start(), extent_).value_or(UINT64_MAX));
  SNUG_TRY(check_kernel_fits(memory_, image->start(), end));
  offset_ = physical_offset(placement_, image->start(), end, limit_, alignment_);
  image_ = std::move(*image);
  return {};
}

Result<void> ElfSink::place(uint64_t offset, std::span<const std::byte> bytes) {
  for (const ElfSegment& segment : image_->segments) {
    const uint64_t from = std::max(offset, segment.file_offset);
    const uint64_t to = std::min(offset + bytes.size(), segment.file_offset + segment.file_size);
    if (from >= to) continue;
    if (!memory_.write(offset_ + segment.gpa + (from - segment.file_offset),
                       bytes.subspan(from - offset, to - from)))
      return fail("segment at {:#x} does not fit into guest memory", segment.gpa);
  }
  keep_tail(offset, bytes);
  return {};
}

void ElfSink::keep_tail(uint64_t offset, std::span<const std::byte> bytes) {
  const uint64_t from = std::max(offset, image_->sections_end);
  if (image_->sections_end == 0 || from >= offset + bytes.size()) return;
  const auto more = bytes.subspan(from - offset);
  // Relocations take less than a fiftieth of a kernel; whatever is longer is something else, and not kept.
  if (tail_.size() + more.size() > kTailMax) {
    tail_.clear();
    image_->sections_end = 0;
    return;
  }
  tail_.insert(tail_.end(), more.begin(), more.end());
}

Result<ElfImage> ElfSink::finish() {
  if (!image_) SNUG_TRY(start_from_head());
  for (const ElfSegment& segment : image_->segments)
    if (segment.file_size > 0 && segment.file_offset + segment.file_size > position_)
      return fail("the kernel inside is cut short: segment at {:#x} lacks bytes", segment.gpa);
  return std::move(*image_);
}

}  // namespace snug::boot
