#include "vmm/core/memory_image.h"

#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace snug {
namespace {

constexpr uint64_t kPage = 4096;
constexpr size_t kEntries = 8192;  // of the page map, read at once

// Documentation/admin-guide/mm/pagemap.rst
constexpr uint64_t kPresent = uint64_t{1} << 63;
constexpr uint64_t kSwapped = uint64_t{1} << 62;

bool is_zero(const std::byte* page) {
  return page[0] == std::byte{0} && std::memcmp(page, page + 1, kPage - 1) == 0;
}

// Which pages of a range of this process were touched.
class TouchedPages {
 public:
  explicit TouchedPages(int pagemap) : pagemap_(pagemap) {}

  bool touched(const std::byte* page) {
    const uint64_t number = reinterpret_cast<uint64_t>(page) / kPage;
    if (number - first_ >= count_ || number < first_) read(number);
    if (number - first_ >= count_) return true;
    return (entries_[number - first_] & (kPresent | kSwapped)) != 0;
  }

 private:
  void read(uint64_t number) {
    first_ = number;
    count_ = 0;
    const iovec part{entries_.data(), entries_.size() * sizeof(uint64_t)};
    const ssize_t got =
        pagemap_ < 0 ? -1 : ::preadv2(pagemap_, &part, 1, static_cast<off_t>(number * sizeof(uint64_t)), 0);
    if (got > 0) count_ = static_cast<uint64_t>(got) / sizeof(uint64_t);
  }

  int pagemap_;
  uint64_t first_ = 0;
  uint64_t count_ = 0;
  std::vector<uint64_t> entries_ = std::vector<uint64_t>(kEntries);
};

Result<void> write_all(int file, const std::byte* from, uint64_t length, uint64_t offset) {
  while (length > 0) {
    const iovec part{const_cast<std::byte*>(from), length};
    const ssize_t count = ::pwritev2(file, &part, 1, static_cast<off_t>(offset), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "write the memory of the machine");
    from += count;
    offset += static_cast<uint64_t>(count);
    length -= static_cast<uint64_t>(count);
  }
  return {};
}

}  // namespace

Result<uint64_t> write_memory_image(const GuestMemory& memory, int pagemap, int file) {
  if (memory.file() >= 0) return fail("the machine's memory is shared with another process");
  if (::ftruncate(file, static_cast<off_t>(memory.size())) != 0)
    return fail_errno(errno, "the file of the machine's memory");
  TouchedPages pages(pagemap);
  uint64_t written = 0;
  uint64_t base = 0;  // of the region, in the file
  for (const GuestMemory::Region& region : memory.regions()) {
    const auto holds = [&](uint64_t at) {
      const std::byte* page = region.host + at;
      return (memory.is_mapped(region.gpa + at) || pages.touched(page)) && !is_zero(page);
    };
    for (uint64_t at = 0; at < region.size;) {
      if (!holds(at)) {
        at += kPage;
        continue;
      }
      const uint64_t start = at;
      for (at += kPage; at < region.size && holds(at);) at += kPage;
      SNUG_TRY(write_all(file, region.host + start, at - start, base + start));
      written += at - start;
    }
    base += region.size;
  }
  return written;
}

Result<void> map_memory_image(const GuestMemory& memory, int file) {
  struct stat status {};
  if (::fstat(file, &status) != 0) return fail_errno(errno, "memory");
  if (!S_ISREG(status.st_mode) || static_cast<uint64_t>(status.st_size) != memory.size())
    return fail("memory: a file of {} bytes, and the machine has {}", status.st_size, memory.size());
  uint64_t base = 0;
  for (const GuestMemory::Region& region : memory.regions()) {
    SNUG_TRY(with_context(memory.map_file(file, base, region.gpa, region.size), "memory"));
    base += region.size;
  }
  return {};
}

}  // namespace snug
