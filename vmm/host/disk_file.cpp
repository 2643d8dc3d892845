#include "vmm/host/disk_file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/stat.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <bit>

#include "devices/virtio/block/disk_image.h"
#include "vmm/base/file_status.h"
#include "vmm/host/lock_holder.h"
#include "vmm/spec/disks.h"

namespace snug {
namespace {

constexpr uint64_t kSector = 512;
constexpr uint32_t kPhysicalMax = 64 << 10;  // bytes; what is above says nothing to a guest

Result<void> lock_disk(int fd, bool read_only) {
  struct flock lock {};
  lock.l_type = read_only ? F_RDLCK : F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) return {};
  // File systems without locks have nothing to refuse with.
  if (errno == ENOLCK || errno == EOPNOTSUPP || errno == EINVAL) return {};
  if (errno != EAGAIN && errno != EACCES) return fail_errno(errno, "lock");
  const std::string holder = lock_holder(fd);
  const std::string who = holder.empty() ? "" : ": " + holder;
  return fail_with_hint(
      (read_only ? "in use: another machine writes to it" : "in use: another machine has it open") + who,
      read_only
          ? "stop that machine first"
          : "stop that machine first, or give all of them a disk with ephemeral: true or readonly: true");
}

// The lock goes with the open file. io_uring keeps those that it works on open for some milliseconds after
// whoever had the ring is gone, by which time the next machine may have asked for the disk.
Result<UniqueFd> open_for_lock(int fd) {
  const int flags = ::fcntl(fd, F_GETFL) & O_ACCMODE;
  UniqueFd own(::open(fmt::format("/proc/self/fd/{}", fd).c_str(), flags | O_CLOEXEC));
  if (own) return own;
  return duplicate(fd);
}

// A file that is gone with its last descriptor.
Result<UniqueFd> nameless_file(const std::string& folder) {
  UniqueFd fd(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd) return fd;
  if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT) return fail_errno(errno, "{}", folder);
  std::string path = folder + "/snug-overlay-XXXXXX";
  fd = UniqueFd(::mkostemp(path.data(), O_CLOEXEC));
  if (!fd) return fail_errno(errno, "{}", folder);
  ::unlink(path.c_str());
  return fd;
}

std::string overlay_folder() {
  const char* chosen = ::getenv("TMPDIR");
  return chosen != nullptr && *chosen != '\0' ? chosen : "/var/tmp";
}

// What direct transfers ask of their parts (STATX_DIOALIGN, Linux 6.1).
uint32_t direct_alignment(int fd) {
  constexpr uint32_t kUsual = 4096;
  struct statx status {};
  if (::syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) != 0 ||
      (status.stx_mask & STATX_DIOALIGN) == 0)
    return kUsual;
  const uint32_t alignment = std::max(status.stx_dio_mem_align, status.stx_dio_offset_align);
  return std::has_single_bit(alignment) ? std::max<uint32_t>(alignment, kSector) : kUsual;
}

// Whether its file system keeps it in memory (swapped out at worst).
bool is_in_memory(int fd) {
  struct statfs system {};
  if (::fstatfs(fd, &system) != 0) return false;
  return system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC;
}

BlockEngine engine_of(DiskIo io) {
  switch (io) {
    case DiskIo::kIoUring:
      return BlockEngine::kIoUring;
    case DiskIo::kThreads:
      return BlockEngine::kThreads;
    case DiskIo::kAuto:
      break;
  }
  return BlockEngine::kAuto;
}

}  // namespace

Result<DiskFile> DiskFile::open_saved(const DiskSpec& disk, int overlay) {
  if (!disk.readonly && !disk.ephemeral)
    return fail("a machine that begins with a snapshot would write to it, and it is of another moment");
  auto file = SNUG_TRY(open(disk));
  file.block_.takes_flushes = disk.ephemeral;
  if (overlay < 0) return file;
  SNUG_TRY(with_context(read_overlay_image(overlay, file.block_.size, file.overlay_fd_.get(), file.written_),
                        "overlay"));
  return file;
}

Result<DiskFile> DiskFile::open(const DiskSpec& disk) {
  DiskFile file;
  const bool writes = !disk.readonly && !disk.ephemeral;
  auto fd = open_file(disk.path, writes ? O_RDWR : O_RDONLY);
  if (!fd && (errno == EACCES || errno == EROFS || errno == EPERM) && writes)
    return fail_with_hint(fd.error().text(),
                          "give it ephemeral: true if what the guest writes may be lost, or readonly: true");
  file.fd_ = SNUG_TRY(std::move(fd));
  file.pmem_ = disk.mode == DiskMode::kPmem;
  SNUG_TRY(file.measure(disk.path));
  file.lock_fd_ = SNUG_TRY(open_for_lock(file.fd_.get()));
  SNUG_TRY(lock_disk(file.lock_fd_.get(), !writes));
  file.take(disk);
  if (file.pmem_) SNUG_TRY(file.pmem());
  if (disk.ephemeral) SNUG_TRY(file.open_overlay());
  if (disk.direct) SNUG_TRY(file.open_direct());
  return file;
}

Result<DiskFile> DiskFile::adopt(const DiskSpec& disk, UniqueFd from, UniqueFd overlay) {
  DiskFile file;
  file.fd_ = std::move(from);
  file.pmem_ = disk.mode == DiskMode::kPmem;
  SNUG_TRY(file.measure(disk.path));
  file.take(disk);
  if (disk.ephemeral) {
    file.overlay_fd_ = std::move(overlay);
    file.block_.written = true;
    SNUG_TRY(file.use_overlay("the folder where it was made"));
  }
  if (disk.direct) SNUG_TRY(file.open_direct());
  return file;
}

// What the spec says of it. The file is open.
void DiskFile::take(const DiskSpec& disk) {
  block_.read_only = disk.readonly;
  block_.ephemeral = disk.ephemeral;
  block_.serial = disk.serial;
  block_.queues = static_cast<uint16_t>(disk.queues);
  block_.queue_size = static_cast<uint16_t>(disk.queue_size);
  block_.discard = true;
  engine_ = engine_of(disk.io);
  thread_ = disk.thread;
  files_.push_back({.fd = fd_.get(), .in_memory = is_in_memory(fd_.get())});
}

Result<void> DiskFile::measure(const std::string& path) {
  struct stat status {};
  if (::fstat(fd_.get(), &status) != 0) return fail_errno(errno, "stat");
  block_.storage = path;
  block_.size = SNUG_TRY(disk_size(fd_.get()));
  uint32_t physical = static_cast<uint32_t>(std::min<blksize_t>(status.st_blksize, kPhysicalMax));
  if (S_ISBLK(status.st_mode)) {
    int block_size = 0;
    if (::ioctl(fd_.get(), BLKSSZGET, &block_size) != 0 || ::ioctl(fd_.get(), BLKPBSZGET, &physical) != 0)
      return fail_errno(errno, "block size of a block device");
    block_.block_size = static_cast<uint32_t>(block_size);
  }
  if (std::has_single_bit(physical)) block_.physical_block_size = physical;
  if (block_.size == 0)
    return fail_with_hint("it is empty: a disk has at least a byte", "truncate -s 1G FILE");
  return {};
}

Result<void> DiskFile::open_overlay() {
  const std::string folder = overlay_folder();
  auto opened = nameless_file(folder);
  if (!opened)
    return fail_with_hint("overlay: " + opened.error().text(),
                          "set TMPDIR to a folder for what the guest writes");
  overlay_fd_ = std::move(*opened);
  if (::ftruncate(overlay_fd_.get(), static_cast<off_t>(block_.size)) != 0)
    return fail_errno(errno, "overlay of {} bytes in {}", block_.size, folder);
  return use_overlay(folder);
}

// It is open, and as large as the disk.
Result<void> DiskFile::use_overlay(const std::string& place) {
  written_ = SNUG_TRY(SectorMap::create((block_.size + kSector - 1) / kSector));
  block_.storage = fmt::format("{} or its overlay in {}", block_.storage, place);
  files_.push_back({.fd = overlay_fd_.get(), .in_memory = is_in_memory(overlay_fd_.get())});
  return {};
}

Result<void> DiskFile::open_direct() {
  for (BlockFile& file : files_) {
    const int flags = ::fcntl(file.fd, F_GETFL) & O_ACCMODE;
    // Once more the same file, whatever its name leads to by now.
    UniqueFd direct(::open(fmt::format("/proc/self/fd/{}", file.fd).c_str(), flags | O_DIRECT | O_CLOEXEC));
    if (!direct && errno == EINVAL)
      return fail_with_hint("direct: the file system has no direct I/O", "leave direct out");
    if (!direct) return fail_errno(errno, "direct");
    file.direct_fd = direct.get();
    file.alignment = direct_alignment(direct.get());
    direct_fds_.push_back(std::move(direct));
  }
  return {};
}

Result<PmemFile> DiskFile::pmem() const {
  struct stat status {};
  if (!file_status(fd_.get(), status)) return fail_errno(errno, "stat");
  if (const auto problem = pmem_problem(status, block_.read_only))
    return fail_with_hint(problem->what, problem->hint);
  return PmemFile{.fd = fd_.get(),
                  .storage = block_.storage,
                  .bytes = static_cast<uint64_t>(status.st_size),
                  .read_only = block_.read_only,
                  .engine = engine_};
}

DiskConfig DiskFile::config() {
  if (const auto size = disk_size(fd_.get()); size && !block_.ephemeral) block_.size = *size;
  DiskConfig config{.block = block_,
                    .files = files_,
                    .written = block_.ephemeral ? &written_ : nullptr,
                    .engine = engine_,
                    .thread = thread_};
  // By the next boot this one has written.
  block_.written = block_.ephemeral;
  return config;
}

}  // namespace snug
