// What both backends know of one request: which descriptor takes it, how it goes on after a short transfer,
// what fallocate does it.
#pragma once

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>

#include <algorithm>
#include <cstring>

#include "devices/virtio/block/backend.h"

namespace snug {

// Direct transfers are for what is aligned; the kernel keeps the rest, which goes through its page cache,
// coherent with them.
inline int transfer_fd(const BlockFile& file, const BlockRequest& request) {
  if (file.direct_fd < 0) return file.fd;
  const auto aligned = [&](uint64_t value) { return value % file.alignment == 0; };
  const bool fits = aligned(request.offset) &&
                    std::all_of(request.iovecs.begin(), request.iovecs.end(), [&](const iovec& part) {
                      return aligned(reinterpret_cast<uintptr_t>(part.iov_base)) && aligned(part.iov_len);
                    });
  return fits ? file.direct_fd : file.fd;
}

// Takes `done` bytes off a transfer. True when nothing is left.
inline bool advance(BlockRequest& request, size_t done) {
  request.offset += done;
  request.length -= done;
  size_t whole = 0;
  while (whole < request.iovecs.size() && done >= request.iovecs[whole].iov_len)
    done -= request.iovecs[whole++].iov_len;
  request.iovecs.erase(request.iovecs.begin(), request.iovecs.begin() + static_cast<ptrdiff_t>(whole));
  if (done > 0) {
    request.iovecs.front().iov_base = static_cast<std::byte*>(request.iovecs.front().iov_base) + done;
    request.iovecs.front().iov_len -= done;
  }
  return request.iovecs.empty();
}

// A read that has come to the end of its file, in the middle of a sector: the rest of that sector is zeros.
inline void fill_last_sector(BlockRequest& request) {
  constexpr uint64_t kSector = 512;
  uint64_t rest = (kSector - request.offset % kSector) % kSector;
  while (rest > 0 && !request.iovecs.empty()) {
    const size_t part = std::min<uint64_t>(rest, request.iovecs.front().iov_len);
    std::memset(request.iovecs.front().iov_base, 0, part);
    (void)advance(request, part);
    rest -= part;
  }
}

// Of preadv2 and pwritev2.
inline int transfer_flags(const BlockRequest& request) {
  return request.durable && request.operation == BlockOperation::kWrite ? RWF_DSYNC : 0;
}

inline int fallocate_mode(BlockOperation operation) {
  return operation == BlockOperation::kWriteZeroes ? FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE
                                                   : FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
}

// A discard is advice: where the file system cannot, nothing is done.
inline int fallocate_error(BlockOperation operation, int error) {
  return operation == BlockOperation::kDiscard && error == EOPNOTSUPP ? 0 : error;
}

}  // namespace snug
