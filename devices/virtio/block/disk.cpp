#include "devices/virtio/block/disk.h"

#include <linux/fs.h>
#include <sys/ioctl.h>

#include "vmm/base/file_status.h"
#include "vmm/base/log.h"

namespace snug {
namespace {

constexpr uint64_t kSector = 512;

Result<std::unique_ptr<BlockBackend>> make_engine(const DiskConfig& config,
                                                  const std::function<void()>& thread_begins) {
  if (config.engine == BlockEngine::kThreads) return make_thread_backend(config.files, thread_begins);
  auto made = make_uring_backend(config.files);
  if (made) return made;
  if (config.engine == BlockEngine::kIoUring)
    return fail_with_hint(fmt::format("{}: {}", config.block.name, made.error().text()),
                          "leave io out: threads then do the work");
  log_info("{}: {}; threads do the work", config.block.name, made.error().text());
  return make_thread_backend(config.files, thread_begins);
}

}  // namespace

Result<std::unique_ptr<BlockBackend>> make_disk_backend(const DiskConfig& config,
                                                        const std::function<void()>& thread_begins) {
  std::unique_ptr<BlockBackend> backend = SNUG_TRY(make_engine(config, thread_begins));
  if (config.written != nullptr) backend = make_overlay_backend(std::move(backend), *config.written);
  return backend;
}

Result<uint64_t> disk_size(int fd) {
  struct stat status {};
  if (!file_status(fd, status)) return fail_errno(errno, "stat");
  // A file that ends in the middle of a sector has that sector: its rest reads as zeros, and is there once
  // the guest has written to it.
  if (!S_ISBLK(status.st_mode))
    return (static_cast<uint64_t>(status.st_size) + kSector - 1) / kSector * kSector;
  uint64_t size = 0;
  if (::ioctl(fd, BLKGETSIZE64, &size) != 0) return fail_errno(errno, "size of a block device");
  return size;
}

}  // namespace snug
