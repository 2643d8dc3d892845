#include "vmm/core/memory_image.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
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
constexpr uint64_t kWrittenTo = uint64_t{1} << 55;  // soft-dirty

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
  // Those from this page on that are known without another look, at most so many.
  std::span<const uint64_t> entries(const std::byte* page, uint64_t most) {
    const uint64_t number = reinterpret_cast<uint64_t>(page) / kPage;
    if (number < first_ || number - first_ >= count_) read(number);
    if (number - first_ >= count_) return {};
    return std::span(entries_).subspan(number - first_, std::min(most, count_ - (number - first_)));
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

OwnPages OwnPages::open() {
  OwnPages pages;
  if (auto file = open_file("/proc/self/pagemap", O_RDONLY)) pages.pagemap = std::move(*file);
  if (auto file = open_file("/proc/self/clear_refs", O_WRONLY)) pages.clear_refs = std::move(*file);
  return pages;
}

struct MemoryImageWriter::Page {
  const std::byte* host;
  uint64_t offset;  // in the file
  uint64_t entry;   // of the page map
  bool mapped;      // of a file: its contents are there without an entry
};

// `each` says whether the page belongs to the run that is written at once; see write_all(). `skip`: how many
// pages with these entries, from that page of the file on, need no look.
template <class Skip, class Each>
Result<void> MemoryImageWriter::for_each_page(Skip skip, Each each) {
  PageMap map(pages_.pagemap.get());
  Holes holes;
  uint64_t base = 0;  // of the region, in the file
  for (const GuestMemory::Region& region : memory_.regions()) {
    for (uint64_t at = 0; at < region.size; at += kPage) {
      const std::byte* host = region.host + at;
      const uint64_t gpa = region.gpa + at;
      // What another process has written is in its page map, and in the file: that lies there as here.
      if (memory_.file() >= 0) {
        SNUG_TRY(each(Page{host, base + at, 0, !holes.at(memory_.file(), base + at)}));
        continue;
      }
      if (const uint64_t skipped = skip(map.entries(host, (region.size - at) / kPage), (base + at) / kPage)) {
        at += (skipped - 1) * kPage;
        continue;
      }
      const uint64_t entry = map.entry(host);
      // Looking at a hole of the file that is mapped there would fill it.
      const GuestMemory::Mapped* file = (entry & (kPresent | kSwapped)) == 0 ? memory_.mapped(gpa) : nullptr;
      const bool mapped =
          file != nullptr && (file->fd < 0 || !holes.at(file->fd, file->offset + (gpa - file->gpa)));
      SNUG_TRY(each(Page{host, base + at, entry, mapped}));
    }
    base += region.size;
  }
  return flush();
}

bool MemoryImageWriter::begin_noting() {
  if (!pages_.pagemap || !pages_.clear_refs || memory_.file() >= 0) return false;
  // Soft-dirty bits only.
  constexpr char kSoftDirty = '4';
  if (::write(pages_.clear_refs.get(), &kSoftDirty, 1) != 1) return false;
  // A kernel without them takes that, and notes nothing.
  alignas(kPage) static std::array<volatile std::byte, kPage> probe;
  probe[0] = std::byte{1};
  return (PageMap(pages_.pagemap.get()).entry(const_cast<const std::byte*>(probe.data())) & kWrittenTo) != 0;
}

Result<void> MemoryImageWriter::write_all() {
  if (::ftruncate(file_, static_cast<off_t>(memory_.size())) != 0)
    return fail_errno(errno, "the file of the machine's memory");
  written_.assign(memory_.size() / kPage, false);
  const auto none = [](std::span<const uint64_t>, uint64_t) { return uint64_t{0}; };
  return for_each_page(none, [this](const Page& page) -> Result<void> {
    const bool holds = (page.mapped || (page.entry & (kPresent | kSwapped)) != 0) && !is_zero(page.host);
    return holds ? write(page) : Result<void>{};
  });
}

Result<void> MemoryImageWriter::write_changed() {
  // The machine stands still meanwhile: a few instructions for each page that is as it was.
  const auto unchanged = [this](std::span<const uint64_t> entries, uint64_t first) {
    uint64_t count = 0;
    for (const uint64_t entry : entries) {
      const bool gone = (entry & (kPresent | kSwapped)) == 0 && written_[first + count];
      if ((entry & kWrittenTo) != 0 || gone) break;
      ++count;
    }
    return count;
  };
  return for_each_page(unchanged, [this](const Page& page) -> Result<void> {
    const bool there = page.mapped || (page.entry & (kPresent | kSwapped)) != 0;
    // What the guest has given back since is zero, and no write.
    if (!there) return clear(page);
    if ((page.entry & kWrittenTo) == 0) return {};
    return is_zero(page.host) ? clear(page) : write(page);
  });
}

Result<void> MemoryImageWriter::write(const Page& page) {
  constexpr uint64_t kRunMax = kMiB;
  const bool next =
      run_length_ < kRunMax && page.host == run_ + run_length_ && page.offset == run_offset_ + run_length_;
  if (!next) {
    SNUG_TRY(flush());
    run_ = page.host;
    run_offset_ = page.offset;
  }
  run_length_ += kPage;
  written_[page.offset / kPage] = true;
  return {};
}

Result<void> MemoryImageWriter::flush() {
  return write_at(file_, run_, std::exchange(run_length_, 0), run_offset_);
}

Result<void> MemoryImageWriter::clear(const Page& page) {
  if (!written_[page.offset / kPage]) return {};
  static const std::array<std::byte, kPage> zeros{};
  written_[page.offset / kPage] = false;
  if (::fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(page.offset),
                  static_cast<off_t>(kPage)) == 0)
    return {};
  return write_at(file_, zeros.data(), kPage, page.offset);
}

namespace {

// Memory that another process has as well is read: what it wrote to a private mapping nobody else would see.
Result<void> read_data(const GuestMemory& memory, int file, uint64_t base,
                       const GuestMemory::Region& region) {
  const uint64_t end = base + region.size;
  for (uint64_t at = base; at < end;) {
    const FileRange data = next_data(file, at, end);
    if (data.to > data.from)
      SNUG_TRY(memory.read_file(file, data.from, region.gpa + (data.from - base), data.to - data.from));
    at = data.to;
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
