// The protocol, Linux's include/uapi/linux/fuse.h, version 7.38, and what later versions of it have added
// that is used here: Debian 12's header does not have it.
#pragma once

#include <linux/fuse.h>

#include <cstdint>

namespace snug::fuse {

constexpr uint32_t kMajor = 7;
constexpr uint32_t kMinor = 38;
// Linux 5.4, the first with virtio-fs.
constexpr uint32_t kOldestMinor = 31;
// 7.39: files without a cache may be mapped all the same, privately.
constexpr uint64_t kDirectIoAllowMmap = uint64_t{1} << 36;
// Guests of before strip setgid bits of new files on their own no more than any file system's server did.
constexpr uint32_t kStripsSetgid = 36;

}  // namespace snug::fuse
