// Where a disk's bytes are: takes requests, works on many at a time, reports each when it is done.
//
// Thread: the device's lock held. submit() and kick() never wait for the disk.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "vmm/base/result.h"

namespace snug {

enum class BlockOperation {
  kRead,
  kWrite,
  kFlush,        // everything that was reported done before is on the medium
  kDiscard,      // the content may be forgotten
  kWriteZeroes,  // reads as zeros, space kept
  kZeroAndFree,  // reads as zeros, space given back
};

struct BlockRequest {
  BlockOperation operation;
  uint64_t offset = 0;        // bytes
  uint64_t length = 0;        // bytes; of reads and writes: what the iovecs hold
  std::vector<iovec> iovecs;  // stay valid until the request is reported
  uint64_t tag = 0;           // names it in the report
};

class BlockBackend {
 public:
  virtual ~BlockBackend() = default;
  // Takes a request, which must stay where it is until it is reported. False when too many are under way.
  virtual bool submit(BlockRequest& request) = 0;
  // Starts what was submitted since.
  virtual void kick() = 0;
  // Counts up when something may be done: then reap().
  virtual int event_fd() const = 0;
  // `error`: 0 or an errno.
  using Report = std::function<void(uint64_t tag, int error)>;
  virtual void reap(const Report& report) = 0;
};

// io_uring. `fd` is the caller's and outlives the backend, which waits for what is under way when it ends.
// Errors: the kernel has none, or it is forbidden.
Result<std::unique_ptr<BlockBackend>> make_uring_backend(int fd);
// A few threads with preadv and pwritev, for where there is no io_uring.
Result<std::unique_ptr<BlockBackend>> make_thread_backend(int fd);

}  // namespace snug
