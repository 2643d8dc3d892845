#include "vmm/shares/share.h"

namespace snug {

void Share::forget_all() {
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
