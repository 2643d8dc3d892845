#include "vmm/machine/disk_file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

namespace snug {
namespace {

constexpr uint64_t kSector = 512;

Result<void> lock_disk(int fd, bool read_only) {
  struct flock lock {};
  lock.l_type = read_only ? F_RDLCK : F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) return {};
  // File systems without locks have nothing to refuse with.
  if (errno == ENOLCK || errno == EOPNOTSUPP || errno == EINVAL) return {};
  if (errno != EAGAIN && errno != EACCES) return fail_errno(errno, "lock");
  return fail_with_hint(
      read_only ? "in use: another machine writes to it" : "in use: another machine has it open",
      read_only ? "stop that machine first"
                : "stop that machine first, or give both a disk with readonly: true");
}

}  // namespace

Result<UniqueFd> open_disk(const DiskSpec& disk, DiskConfig& config) {
  auto fd = open_file(disk.path, disk.readonly ? O_RDONLY : O_RDWR);
  if (!fd && (errno == EACCES || errno == EROFS || errno == EPERM) && !disk.readonly)
    return fail_with_hint(fd.error().text(), "give it readonly: true if the guest need not write");
  if (!fd) return fd;
  struct stat status {};
  if (::fstat(fd->get(), &status) != 0) return fail_errno(errno, "stat");
  if (S_ISBLK(status.st_mode)) {
    int block_size = 0;
    if (::ioctl(fd->get(), BLKGETSIZE64, &config.size) != 0 ||
        ::ioctl(fd->get(), BLKSSZGET, &block_size) != 0)
      return fail_errno(errno, "size of a block device");
    config.block_size = static_cast<uint32_t>(block_size);
  } else {
    config.size = static_cast<uint64_t>(status.st_size);
  }
  if (config.size < kSector)
    return fail_with_hint(fmt::format("only {} bytes: a disk has at least {}", config.size, kSector),
                          "make it larger: truncate -s 1G FILE");
  SNUG_TRY(lock_disk(fd->get(), disk.readonly));
  config.read_only = disk.readonly;
  config.serial = disk.serial;
  config.queues = static_cast<uint16_t>(disk.queues);
  return fd;
}

}  // namespace snug
