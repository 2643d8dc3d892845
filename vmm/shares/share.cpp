#include "vmm/shares/share.h"

namespace snug {

void Share::set_root(const FileStatus& status) {
  host.set_root(status);
  root_status = status;
  is_file = S_ISREG(status.stx_mode);
  if (!is_file) return;
  // Linux mounts folders only.
  root_status.stx_mode = S_IFDIR | 0555;
  root_status.stx_ino = ~status.stx_ino;
  root_status.stx_nlink = 2;
  root_status.stx_size = root_status.stx_blocks = 0;
}

void Share::forget_all() {
  waits.forget_all();
  locks.clear();
  handles.clear();
  inodes.clear(root.get(), root_status);
  agreed = {};
}

uint64_t Share::validity() const {
  switch (options.cache) {
    case ShareCache::kAlways:
      return 86'400;
    case ShareCache::kNone:
      return 0;
    case ShareCache::kAuto:
      break;
  }
  return 1;
}

uint64_t Share::number(uint64_t device, uint64_t number) const {
  if (device == device_of(root_status) || agreed.has(FUSE_SUBMOUNTS)) return number;
  return number ^ (device * 0x9e3779b97f4a7c15 & ~uint64_t{0xffffff});
}

}  // namespace snug
