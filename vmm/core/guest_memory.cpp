#include "vmm/core/guest_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "vmm/base/checked.h"
#include "vmm/core/address_map.h"

namespace snug {
namespace {

constexpr uint64_t kHugePage = 2 * kMiB;
// Where several processes have the memory its notes lie behind it, in the same file.
uint64_t notes_bytes(uint64_t size) { return align_up(dirty_words(size) * sizeof(uint64_t), 4096); }

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

}  // namespace

Result<GuestMemory> GuestMemory::create_shared(uint64_t size) {
  return make(size, SNUG_TRY(create_file(size)));
}

Result<UniqueFd> GuestMemory::create_file(uint64_t size) {
  UniqueFd file(::memfd_create("guest-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file) return fail_errno(errno, "guest memory: memfd_create");
  if (::ftruncate(file.get(), static_cast<off_t>(size + notes_bytes(size))) != 0)
    return fail_errno(errno, "guest memory of {} bytes", size);
  // What is mapped stays there, whoever else has the file.
  if (::fcntl(file.get(), F_ADD_SEALS, kSeals) != 0) return fail_errno(errno, "guest memory: seals");
  return file;
}

Result<GuestMemory> GuestMemory::attach(UniqueFd file, uint64_t size) {
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return fail_errno(errno, "guest memory");
  const int seals = ::fcntl(file.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals ||
      static_cast<uint64_t>(status.st_size) != size + notes_bytes(size))
    return fail("guest memory: not a sealed file of {} bytes", size);
  return make(size, std::move(file));
}

Result<GuestMemory> GuestMemory::make(uint64_t size, UniqueFd file) {
  if (size < kMiB || size % 4096 != 0)
    return fail("guest memory of {} bytes: not a multiple of 4 KiB of at least 1 MiB", size);
  GuestMemory memory;
  memory.size_ = size;
  memory.file_ = std::move(file);
  const auto mapped = [&memory](uint64_t offset, uint64_t length) -> Result<Mapping> {
    if (!memory.file_) return Mapping::anonymous(length, kHugePage);
    return Mapping::create(length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory.file_.get(),
                           offset);
  };
  const auto add = [&](uint64_t gpa, uint64_t offset, uint64_t length) -> Result<void> {
    auto mapping = SNUG_TRY(with_context(mapped(offset, length), "guest memory"));
    // Advice only: a host without transparent huge pages runs the guest all the same.
    ::madvise(mapping.data(), length, MADV_HUGEPAGE);
    ::madvise(mapping.data(), length, MADV_DONTFORK);
    memory.regions_.push_back({gpa, length, mapping.data()});
    memory.mappings_.push_back(std::move(mapping));
    return {};
  };
  const uint64_t low = std::min(size, map::kHoleStart);
  SNUG_TRY(add(0, 0, low));
  if (size > low) SNUG_TRY(add(map::kHoleEnd, low, size - low));
  memory.mappings_.push_back(SNUG_TRY(with_context(mapped(size, notes_bytes(size)), "guest memory")));
  auto* const words = reinterpret_cast<uint64_t*>(memory.mappings_.back().data());
  memory.notes_ = DirtyNotes(std::span(words, dirty_words(size)));
  return memory;
}

const GuestMemory::Region* GuestMemory::find(uint64_t gpa, uint64_t length) const {
  for (const Region& region : regions_)
    if (gpa >= region.gpa && range_within(gpa - region.gpa, length, region.size)) return &region;
  return nullptr;
}

const GuestMemory::Region* GuestMemory::find(uint64_t gpa, uint64_t length, Access access) const {
  if (const Region* region = find(gpa, length)) return region;
  for (const FileRegion& file : file_regions_)
    if (gpa >= file.gpa && range_within(gpa - file.gpa, length, file.size))
      return access == Access::kRead || file.access == Access::kReadWrite ? &file : nullptr;
  return nullptr;
}

Result<void> GuestMemory::add_file(const FileRegion& file, const std::string& name) {
  constexpr uint64_t kPage = 4096;
  const auto end = checked_add(file.gpa, file.size);
  if (file.gpa % kFileGranule != 0 || file.size % kFileGranule != 0 || file.bytes == 0 ||
      file.bytes > file.size || (file.access == Access::kReadWrite && file.bytes != file.size) || !end)
    return fail("a file of {:#x} bytes as {:#x} bytes of memory at {:#x}", file.bytes, file.size, file.gpa);
  if (file.gpa < std::max(end_of_all(), map::kHoleEnd) || file_regions_.size() >= kFilesMax)
    return fail("a file at {:#x}, where there is something else", file.gpa);
  // At addresses that suit huge pages, where the file has such.
  auto mapping = SNUG_TRY(Mapping::anonymous(file.size, kHugePage));
  const int protection = file.access == Access::kReadWrite ? PROT_READ | PROT_WRITE : PROT_READ;
  const uint64_t pages = (file.bytes + kPage - 1) / kPage * kPage;
  if (::mmap(mapping.data(), pages, protection, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, file.fd, 0) ==
      MAP_FAILED)
    return fail_errno(errno, "mmap");
  // What is behind the file is nobody's to write to.
  if (pages < file.size &&
      ::mmap(mapping.data() + pages, file.size - pages, PROT_READ,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
    return fail_errno(errno, "mmap");
  for (const int advice : {MADV_HUGEPAGE, MADV_DONTFORK, MADV_DONTDUMP})
    ::madvise(mapping.data(), file.size, advice);
  lost_pages_.push_back(SNUG_TRY(LostPages::watch(mapping.bytes().first(pages), name)));
  file_regions_.push_back(file);
  file_regions_.back().host = mapping.data();
  mappings_.push_back(std::move(mapping));
  return {};
}

bool GuestMemory::read(uint64_t gpa, std::span<std::byte> out) const {
  const std::byte* from = host(gpa, out.size(), Access::kRead);
  if (from == nullptr) return false;
  std::copy_n(from, out.size(), out.data());
  return true;
}

bool GuestMemory::write(uint64_t gpa, std::span<const std::byte> data) const {
  std::byte* to = host(gpa, data.size(), Access::kReadWrite);
  if (to == nullptr) return false;
  std::copy_n(data.data(), data.size(), to);
  wrote(gpa, data.size());
  return true;
}

bool GuestMemory::zero(uint64_t gpa, uint64_t length) const {
  const Region* region = find(gpa, length);
  if (region == nullptr) return false;
  std::memset(region->host + (gpa - region->gpa), 0, length);
  wrote(gpa, length);
  return true;
}

bool GuestMemory::discard(uint64_t gpa, uint64_t length) const {
  const Region* region = find(gpa, length);
  if (region == nullptr || gpa % 4096 != 0 || length % 4096 != 0) return false;
  const bool done = drop(*region, gpa, gpa + length);
  wrote(gpa, length);
  return done;
}

bool GuestMemory::drop(const Region& region, uint64_t gpa, uint64_t end) const {
  const auto in_host = [&](uint64_t address) { return region.host + (address - region.gpa); };
  const auto drop_anonymous = [&](uint64_t to) {
    const bool done =
        gpa == to || ::madvise(in_host(gpa), to - gpa, file_ ? MADV_REMOVE : MADV_DONTNEED) == 0;
    gpa = to;
    return done;
  };
  // What was mapped from a file would come back with the file's content: memory of our own takes its place.
  for (const Mapped& file : files_) {
    const uint64_t from = std::max(gpa, file.gpa);
    const uint64_t to = std::min(end, file.gpa + file.length);
    if (from >= to) continue;
    if (!drop_anonymous(from)) return false;
    if (::mmap(in_host(from), to - from, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
      return false;
    ::madvise(in_host(from), to - from, MADV_DONTFORK);
    gpa = to;
  }
  return drop_anonymous(end);
}

bool GuestMemory::append_iovec(uint64_t gpa, uint64_t length, std::vector<iovec>& iovecs) const {
  std::byte* at = host(gpa, length, Access::kRead);
  if (at == nullptr) return false;
  iovecs.push_back({at, length});
  return true;
}

Result<void> GuestMemory::read_file(int fd, uint64_t offset, uint64_t gpa, uint64_t length) const {
  const Region* region = find(gpa, length);
  if (region == nullptr) return fail("{:#x} bytes at {:#x} do not fit into guest memory", length, gpa);
  std::byte* to = region->host + (gpa - region->gpa);
  while (length > 0) {
    const ssize_t count = ::pread(fd, to, length, static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "read");
    if (count == 0) return fail("file ends {} bytes too early", length);
    to += count;
    offset += static_cast<uint64_t>(count);
    length -= static_cast<uint64_t>(count);
  }
  return {};
}

const GuestMemory::Mapped* GuestMemory::mapped(uint64_t gpa) const {
  const auto found = std::ranges::find_if(
      files_, [gpa](const Mapped& file) { return gpa >= file.gpa && gpa - file.gpa < file.length; });
  return found == files_.end() ? nullptr : &*found;
}

Result<void> GuestMemory::map_file(int fd, uint64_t offset, uint64_t gpa, uint64_t length,
                                   bool kept_open) const {
  const Region* region = find(gpa, length);
  if (region == nullptr) return fail("{:#x} bytes at {:#x} do not fit into guest memory", length, gpa);
  if (file_) return read_file(fd, offset, gpa, length);
  std::byte* to = region->host + (gpa - region->gpa);
  if (::mmap(to, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd,
             static_cast<off_t>(offset)) == MAP_FAILED)
    return fail_errno(errno, "mmap");
  ::madvise(to, length, MADV_DONTFORK);
  const auto behind = std::ranges::find_if(files_, [gpa](const Mapped& file) { return file.gpa > gpa; });
  files_.insert(behind, {gpa, length, kept_open ? fd : -1, offset});
  return {};
}

}  // namespace snug
