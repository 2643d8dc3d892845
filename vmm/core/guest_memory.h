// Guest RAM, and files that the guest has as memory beside it. Everything that reads or writes them copies
// through here: no pointer or reference into guest memory leaves this class but the iovecs made for one
// system call and the regions handed to the hypervisor.
//
// Thread: create on one, then use from any; regions never change. The guest writes concurrently at any
// moment, so copy once, then look.
#pragma once

#include <sys/uio.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "vmm/base/mapping.h"
#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/address_map.h"
#include "vmm/core/dirty_log.h"
#include "vmm/core/lost_pages.h"

namespace snug {

class GuestMemory {
 public:
  struct Region {
    uint64_t gpa;
    uint64_t size;
    std::byte* host;
  };
  enum class Access : uint8_t { kRead, kReadWrite };
  // A file of the host that the guest has as memory: what one writes, all who have the file see.
  struct FileRegion : Region {
    Access access = Access::kRead;  // the guest's, and that of devices on its behalf
    int fd = -1;                    // the caller's
    uint64_t bytes = 0;             // of the file; what is behind them reads as zeros
  };

  // `size`: bytes, a multiple of 4 KiB, at least 1 MiB. RAM above map::kHoleStart continues at 4 GiB.
  // Sparse (nothing is allocated before it is touched), advised for transparent huge pages.
  static Result<GuestMemory> create(uint64_t size) { return make(size, UniqueFd()); }
  // The same for more than one process: it lies in a file without a name, sealed against other sizes, which
  // file() is. Files are read into it instead of mapped. Huge pages only where the host has them for such
  // files.
  static Result<GuestMemory> create_shared(uint64_t size);
  // The file alone, for a process that is to attach() it. RAM's bytes are at its start, in order.
  static Result<UniqueFd> create_file(uint64_t size);
  // What create_shared() has made in another process. Errors: a file that is not like that.
  static Result<GuestMemory> attach(UniqueFd file, uint64_t size);
  // -1: nobody else can have it.
  int file() const { return file_.get(); }

  uint64_t size() const { return size_; }
  // Ascending by gpa, one or two entries.
  std::span<const Region> regions() const { return regions_; }
  // At most kFilesMax, ascending by gpa. Never part of RAM: contains() and regions() do not know them.
  std::span<const FileRegion> files() const { return file_regions_; }
  static constexpr size_t kFilesMax = 16;
  // Maps a file behind all that is there: RAM and other files. gpa and size are multiples of 2 MiB, `size` at
  // least `bytes`, and with kReadWrite no more: what is written behind a file's end is nowhere. `name` is for
  // the last words of a process that misses its pages (lost_pages.h). Set-up only. Errors: what is not so,
  // what mmap says.
  Result<void> add_file(const FileRegion& file, const std::string& name);
  static constexpr uint64_t kFileGranule = uint64_t{2} << 20;  // bytes

  // End of RAM below the hole / one past the last byte of RAM / the same of RAM and files.
  uint64_t low_end() const { return regions_.front().size; }
  uint64_t end() const { return regions_.back().gpa + regions_.back().size; }
  uint64_t end_of_all() const {
    return file_regions_.empty() ? end() : file_regions_.back().gpa + file_regions_.back().size;
  }

  // Whether all of [gpa, gpa + length) is RAM. Never wraps. An empty range is RAM when gpa is in or at the
  // end of a region.
  bool contains(uint64_t gpa, uint64_t length) const { return find(gpa, length) != nullptr; }
  // Whether a device may reach all of it so on the guest's behalf: it is RAM, or within one file.
  bool reaches(uint64_t gpa, uint64_t length, Access access) const {
    return find(gpa, length, access) != nullptr;
  }

  // Copy, in any order and any pieces; false, with nothing copied, unless the whole range is RAM or within a
  // file, one that may be written to for write().
  [[nodiscard]] bool read(uint64_t gpa, std::span<std::byte> out) const;
  [[nodiscard]] bool write(uint64_t gpa, std::span<const std::byte> data) const;
  // RAM only.
  [[nodiscard]] bool zero(uint64_t gpa, uint64_t length) const;

  // One value. Of 1, 2, 4 or 8 bytes, at a multiple of its size, it is one access: never half of what the
  // guest writes at that moment with half of what was there, nor the other way round.
  template <class T>
  requires std::is_trivially_copyable_v<T> std::optional<T> load(uint64_t gpa)
  const {
    if constexpr (has_word<T>) {
      if (gpa % sizeof(T) == 0) {
        const std::byte* at = host(gpa, sizeof(T), Access::kRead);
        if (at == nullptr) return std::nullopt;
        return std::bit_cast<T>(
            __atomic_load_n(reinterpret_cast<const Word<sizeof(T)>*>(at), __ATOMIC_RELAXED));
      }
    }
    T value;
    if (!read(gpa, std::as_writable_bytes(std::span(&value, 1)))) return std::nullopt;
    return value;
  }
  template <class T>
  requires std::is_trivially_copyable_v<T>
  [[nodiscard]] bool store(uint64_t gpa, const T& value) const {
    if constexpr (has_word<T>) {
      if (gpa % sizeof(T) == 0) {
        std::byte* at = host(gpa, sizeof(T), Access::kReadWrite);
        if (at == nullptr) return false;
        __atomic_store_n(reinterpret_cast<Word<sizeof(T)>*>(at), std::bit_cast<Word<sizeof(T)>>(value),
                         __ATOMIC_RELAXED);
        wrote(gpa, sizeof(T));
        return true;
      }
    }
    return write(gpa, std::as_bytes(std::span(&value, 1)));
  }

  // Gives the pages back to the host: they are zero from now on and cost memory again once they are touched.
  // Both numbers are multiples of 4 KiB. False unless the whole range is RAM and the host took it: files lose
  // nothing.
  [[nodiscard]] bool discard(uint64_t gpa, uint64_t length) const;

  // Adds `delta`, modulo the type's range, to the number of type T (in this machine's byte order) at each of
  // the `offsets` from `gpa`. False when one of them does not lie within [gpa, gpa + size), or that range is
  // not RAM; the numbers before it have changed then.
  template <class T>
  requires std::is_unsigned_v<T>
  [[nodiscard]] bool add_at(uint64_t gpa, uint64_t size, std::span<const uint32_t> offsets, T delta) const {
    const Region* region = find(gpa, size);
    if (region == nullptr || size < sizeof(T)) return offsets.empty();
    std::byte* const start = region->host + (gpa - region->gpa);
    for (const uint32_t offset : offsets) {
      if (offset > size - sizeof(T)) return false;
      T value;
      std::memcpy(&value, start + offset, sizeof value);
      value = static_cast<T>(value + delta);
      std::memcpy(start + offset, &value, sizeof value);
    }
    // At once: there are hundreds of thousands of them in a kernel.
    wrote(gpa, size);
    return true;
  }

  // Appends the host memory of the range for one system call (preadv, readv, io_uring). False, with nothing
  // appended, unless the whole range is RAM or within a file. The kernel refuses to write where it may not.
  // Who lets it write says wrote() when it is done.
  [[nodiscard]] bool append_iovec(uint64_t gpa, uint64_t length, std::vector<iovec>& iovecs) const;

  // The writes to a range that append_iovec() has given are done. Whatever else writes here notes it itself.
  void wrote(uint64_t gpa, uint64_t length) const {
    const uint64_t offset = gpa < low_end() ? gpa : gpa - map::kHoleEnd + low_end();
    // What is not RAM is in a file.
    if (offset < size_) notes_.note(offset, length);
  }
  // What was written to RAM by this class, here and in processes that have the same memory, set-up aside.
  const DirtyNotes& notes() const { return notes_; }

  // Set-up: reads exactly `length` bytes of `fd` from `offset` into RAM at `gpa`. Errors: range outside RAM,
  // I/O, file too short.
  Result<void> read_file(int fd, uint64_t offset, uint64_t gpa, uint64_t length) const;

  // What map_file() has put in the place of RAM, and what the host's page tables do not show before it is
  // touched.
  struct Mapped {
    uint64_t gpa;
    uint64_t length;
    int fd = -1;  // the caller's, as long as it keeps it open; -1: it does not
    uint64_t offset = 0;
  };
  // The one that `gpa` lies in; nullptr: none.
  const Mapped* mapped(uint64_t gpa) const;

  // Puts `length` bytes of `fd` from `offset` in the place of RAM at `gpa`, copy-on-write; all three are
  // multiples of 4 KiB. The file must never get shorter: touching what it lost is a SIGBUS. Errors: range
  // outside RAM, a file that cannot be mapped; RAM is as before then. During set-up only. Memory that is
  // shared gets a copy.
  // `kept_open`: by the caller, for as long as this lives.
  Result<void> map_file(int fd, uint64_t offset, uint64_t gpa, uint64_t length, bool kept_open = false) const;

 private:
  // What the processor reads and writes at once. Regions begin at whole pages, so that addresses of the guest
  // and of the host are aligned alike.
  template <size_t size>
  using Word = std::conditional_t<
      size == 1, uint8_t,
      std::conditional_t<size == 2, uint16_t, std::conditional_t<size == 4, uint32_t, uint64_t>>>;
  template <class T>
  static constexpr bool has_word = sizeof(T) == sizeof(Word<sizeof(T)>);

  static Result<GuestMemory> make(uint64_t size, UniqueFd file);
  bool drop(const Region& region, uint64_t gpa, uint64_t end) const;
  const Region* find(uint64_t gpa, uint64_t length) const;
  const Region* find(uint64_t gpa, uint64_t length, Access access) const;
  // Where it is in this process; nullptr unless a device may reach all of it so.
  std::byte* host(uint64_t gpa, uint64_t length, Access access) const {
    const Region* region = find(gpa, length, access);
    return region == nullptr ? nullptr : region->host + (gpa - region->gpa);
  }

  uint64_t size_ = 0;
  mutable std::vector<Mapped> files_;  // ascending, set-up only
  UniqueFd file_;
  std::vector<Mapping> mappings_;
  DirtyNotes notes_;  // in a mapping of its own
  std::vector<Region> regions_;
  std::vector<FileRegion> file_regions_;
  std::vector<std::unique_ptr<LostPages>> lost_pages_;  // of the files; before the mappings go
};

}  // namespace snug
