#include "vmm/core/memory_image.h"

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "vmm/base/checked.h"
#include "vmm/base/sparse_file.h"

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

// Where a file has data and where it has holes, asked for piece by piece, forwards.
class Holes {
 public:
  bool at(int file, uint64_t offset) {
    if (file != file_ || offset < from_ || offset >= to_) look(file, offset);
    return hole_;
  }

 private:
  void look(int file, uint64_t offset) {
    const off_t data = ::lseek(file, static_cast<off_t>(offset), SEEK_DATA);
    file_ = file;
    from_ = offset;
    hole_ = data < 0 ? errno == ENXIO : static_cast<uint64_t>(data) > offset;
    const off_t end = hole_ ? data : ::lseek(file, static_cast<off_t>(offset), SEEK_HOLE);
    // To its end, or, where nothing is told, this page.
    to_ = end >= 0 ? static_cast<uint64_t>(end) : hole_ ? UINT64_MAX : offset + kPage;
  }

  int file_ = -1;
  bool hole_ = false;
  uint64_t from_ = 0;
  uint64_t to_ = 0;
};

// The page map from some page on, read in pieces.
class PageMap {
 public:
  explicit PageMap(int file) : file_(file) {}

  // All bits set where it cannot be read: anything may be there.
  uint64_t entry(const std::byte* page) {
    const uint64_t number = reinterpret_cast<uint64_t>(page) / kPage;
    if (number < first_ || number - first_ >= count_) read(number);
    return number - first_ < count_ ? entries_[number - first_] : ~uint64_t{0};
  }

 private:
  void read(uint64_t number) {
    first_ = number;
    count_ = 0;
    if (file_ < 0) return;
    const iovec part{entries_.data(), entries_.size() * sizeof(uint64_t)};
    const ssize_t got = ::preadv2(file_, &part, 1, static_cast<off_t>(number * sizeof(uint64_t)), 0);
    if (got > 0) count_ = static_cast<uint64_t>(got) / sizeof(uint64_t);
  }

  int file_;
  uint64_t first_ = 0;
  uint64_t count_ = 0;
  std::vector<uint64_t> entries_ = std::vector<uint64_t>(kEntries);
};

Result<void> write_at(int file, const std::byte* from, uint64_t length, uint64_t offset) {
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

UniqueFd open_pagemap() {
  auto file = open_file("/proc/self/pagemap", O_RDONLY);
  return file ? std::move(*file) : UniqueFd();
}

struct MemoryImageWriter::Page {
  const std::byte* host;
  uint64_t offset;  // in the file
  bool there;       // a look at it makes nothing
};

template <class Each>
Result<void> MemoryImageWriter::for_each_page(Each each) {
  PageMap map(pagemap_.get());
  Holes holes;
  uint64_t base = 0;  // of the region, in the file
  for (const GuestMemory::Region& region : memory_.regions()) {
    for (uint64_t at = 0; at < region.size; at += kPage) {
      const std::byte* host = region.host + at;
      const uint64_t gpa = region.gpa + at;
      // What another process has written is in its page map, and in the file: that lies there as here.
      if (memory_.file() >= 0) {
        SNUG_TRY(each(Page{host, base + at, !holes.at(memory_.file(), base + at)}));
        continue;
      }
      const bool touched = (map.entry(host) & (kPresent | kSwapped)) != 0;
      // Looking at a hole of the file that is mapped there would fill it.
      const GuestMemory::Mapped* file = touched ? nullptr : memory_.mapped(gpa);
      const bool mapped =
          file != nullptr && (file->fd < 0 || !holes.at(file->fd, file->offset + (gpa - file->gpa)));
      SNUG_TRY(each(Page{host, base + at, touched || mapped}));
    }
    base += region.size;
  }
  return flush();
}

Result<void> MemoryImageWriter::write_all() {
  if (!sized_ && ::ftruncate(file_, static_cast<off_t>(memory_.size())) != 0)
    return fail_errno(errno, "the file of the machine's memory");
  written_.assign(memory_.size() / kPage, false);
  return for_each_page([this](const Page& page) -> Result<void> {
    return page.there && !is_zero(page.host) ? write(page.host, page.offset) : Result<void>{};
  });
}

// One that the guest has given back since is zero: a look at it costs a page of zeros at most, which the host
// has once.
Result<void> MemoryImageWriter::write_pages(std::span<const uint64_t> dirty) {
  const std::span<const GuestMemory::Region> regions = memory_.regions();
  for (size_t i = 0; i < dirty.size(); ++i) {
    for (uint64_t bits = dirty[i]; bits != 0; bits &= bits - 1) {
      const uint64_t offset = (i * kPagesOfWord + static_cast<uint64_t>(std::countr_zero(bits))) * kPage;
      if (offset >= memory_.size()) break;
      const bool low = offset < regions.front().size;
      const std::byte* page =
          low ? regions.front().host + offset : regions.back().host + (offset - regions.front().size);
      SNUG_TRY(is_zero(page) ? clear(offset) : write(page, offset));
    }
  }
  return flush();
}

Result<void> MemoryImageWriter::write(const std::byte* page, uint64_t offset) {
  constexpr uint64_t kRunMax = kMiB;
  const bool next =
      run_length_ < kRunMax && page == run_ + run_length_ && offset == run_offset_ + run_length_;
  if (!next) {
    SNUG_TRY(flush());
    run_ = page;
    run_offset_ = offset;
  }
  run_length_ += kPage;
  written_[offset / kPage] = true;
  return {};
}

Result<void> MemoryImageWriter::flush() {
  return write_at(file_, run_, std::exchange(run_length_, 0), run_offset_);
}

Result<void> MemoryImageWriter::clear(uint64_t offset) {
  if (!written_[offset / kPage]) return {};
  static const std::array<std::byte, kPage> zeros{};
  written_[offset / kPage] = false;
  if (::fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                  static_cast<off_t>(kPage)) == 0)
    return {};
  return write_at(file_, zeros.data(), kPage, offset);
}

namespace {

// Between two files, at the same place in both, by the kernel alone: pages that are written whole need no
// zeros first, and what a guest never looks at is never mapped. How far it came: a file system may know no
// way.
uint64_t copy_by_kernel(int from, int to, const FileRange& data) {
  if (::lseek(to, static_cast<off_t>(data.from), SEEK_SET) < 0) return data.from;
  auto at = static_cast<off_t>(data.from);
  while (static_cast<uint64_t>(at) < data.to) {
    const ssize_t count = ::sendfile(to, from, &at, data.to - static_cast<uint64_t>(at));
    if (count == 0 || (count < 0 && errno != EINTR)) break;
  }
  return static_cast<uint64_t>(at);
}

// Memory that another process has as well is read: what it wrote to a private mapping nobody else would see.
Result<void> read_data(const GuestMemory& memory, int file, uint64_t base,
                       const GuestMemory::Region& region) {
  const uint64_t end = base + region.size;
  for (uint64_t at = base; at < end;) {
    FileRange data = next_data(file, at, end);
    at = data.to;
    // The file that it lies in is like this one.
    data.from = copy_by_kernel(file, memory.file(), data);
    if (data.to > data.from)
      SNUG_TRY(memory.read_file(file, data.from, region.gpa + (data.from - base), data.to - data.from));
  }
  return {};
}

}  // namespace

Result<void> map_memory_image(const GuestMemory& memory, int file) {
  struct stat status {};
  if (::fstat(file, &status) != 0) return fail_errno(errno, "memory");
  if (!S_ISREG(status.st_mode) || static_cast<uint64_t>(status.st_size) != memory.size())
    return fail("memory: a file of {} bytes, and the machine has {}", status.st_size, memory.size());
  uint64_t base = 0;
  for (const GuestMemory::Region& region : memory.regions()) {
    auto done = memory.file() >= 0 ? read_data(memory, file, base, region)
                                   : memory.map_file(file, base, region.gpa, region.size, true);
    SNUG_TRY(with_context(std::move(done), "memory"));
    base += region.size;
  }
  return {};
}

}  // namespace snug
