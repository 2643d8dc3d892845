#include "guest-images/agent/storage.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "guest-images/agent/connection.h"
#include "guest-images/agent/drivers.h"
#include "guest-images/agent/small_files.h"

namespace snug::agent {
namespace {

constexpr const char* kDisks = "/sys/block";
// Of <linux/ext4.h>, which is newer than some systems' headers: blocks that the file system is to have.
constexpr unsigned long kResize = _IOW('f', 16, uint64_t);
constexpr uint64_t kBlock = 4096;

// A driver may be a moment late.
constexpr int kAttempts = 20;
constexpr useconds_t kPause = 100'000;

std::string because(const std::string& what) { return what + ": " + std::strerror(errno); }

// "/dev/vdb"; "" when there is none.
std::string find_disk(const std::string& serial) {
  std::string found;
  DIR* disks = ::opendir(kDisks);
  if (disks == nullptr) return found;
  while (const dirent* entry = ::readdir(disks)) {
    std::string text = read_file(std::string(kDisks) + "/" + entry->d_name + "/serial");
    while (!text.empty() && text.back() == '\n') text.pop_back();
    if (text == serial) found = std::string("/dev/") + entry->d_name;
  }
  ::closedir(disks);
  return found;
}

// One that has its size already is left alone by the kernel.
std::string grow(const std::string& disk, const std::string& place) {
  const Fd device(::open(disk.c_str(), O_RDONLY | O_CLOEXEC));
  const Fd root(::open(place.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  uint64_t bytes = 0;
  if (::ioctl(device.get(), BLKGETSIZE64, &bytes) != 0) return because(disk);
  uint64_t blocks = bytes / kBlock;
  if (::ioctl(root.get(), kResize, &blocks) != 0) return because("resize its file system");
  return {};
}

}  // namespace

std::string mount_storage(const std::string& serial, const std::string& place) {
  load_drivers_of("/modules", "storage");
  std::string disk;
  for (int attempt = 0; attempt < kAttempts && disk.empty(); ++attempt) {
    if (attempt > 0) ::usleep(kPause);
    disk = find_disk(serial);
  }
  if (disk.empty()) return "no disk has the serial number " + serial;
  if (::mount(disk.c_str(), place.c_str(), "ext4", 0, nullptr) != 0)
    return errno == ENODEV ? "this kernel has no ext4 (CONFIG_EXT4_FS)" : because("mount " + disk);
  return grow(disk, place);
}

}  // namespace snug::agent
