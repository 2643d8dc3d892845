// What both backends know of one request: how it goes on after a short transfer, what fallocate does it.
#pragma once

#include <fcntl.h>
#include <linux/falloc.h>

#include "devices/virtio/block/backend.h"

namespace snug {

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

inline int fallocate_mode(BlockOperation operation) {
  return operation == BlockOperation::kWriteZeroes ? FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE
                                                   : FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
}

// A discard is advice: where the file system cannot, nothing is done.
inline int fallocate_error(BlockOperation operation, int error) {
  return operation == BlockOperation::kDiscard && error == EOPNOTSUPP ? 0 : error;
}

}  // namespace snug
