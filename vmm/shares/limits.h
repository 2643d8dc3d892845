// What one request may ask for at most.
#pragma once

#include <cstddef>
#include <cstdint>

namespace snug {

constexpr uint32_t kMaxTransfer = 1u << 20;        // bytes of a read or a write, told by FUSE_INIT
constexpr uint32_t kMaxListing = 128u << 10;       // bytes of a folder's entries
constexpr uint32_t kMaxXattr = 64u << 10;          // bytes of an extended attribute, or of their names
constexpr uint64_t kMaxCopy = uint64_t{64} << 20;  // bytes of a copy within the host
constexpr size_t kMaxIovecs = 1024;                // of a system call (IOV_MAX)

}  // namespace snug
