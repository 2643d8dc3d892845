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
  size_t file = 0;            // which of the backend's files
  uint64_t offset = 0;        // bytes
  uint64_t length = 0;        // bytes; of reads and writes: what the iovecs hold
  std::vector<iovec> iovecs;  // stay valid until the request is reported
  uint64_t tag = 0;           // names it in the report
  bool durable = false;       // on the medium before it is reported done, as if flushed
};

// A file that holds bytes of a disk, open twice when the host's page cache is to be passed by.
struct BlockFile {
  int fd = -1;
  int direct_fd = -1;         // with O_DIRECT, or -1
  uint32_t alignment = 4096;  // bytes: what direct_fd asks of offsets, lengths and addresses
  bool in_memory = false;     // has no medium to wait for, as on a tmpfs
};

class BlockBackend {
 public:
  virtual ~BlockBackend() = default;
  // Takes a request, which must stay where it is until it is reported. False when too many are under way.
  virtual bool submit(BlockRequest& request) = 0;
  // Starts what was submitted since. True when something is done already: then reap(), event_fd() does not
  // tell of it.
  virtual bool kick() = 0;
  // Counts up when something may be done: then reap().
  virtual int event_fd() const = 0;
  // `error`: 0 or an errno.
  using Report = std::function<void(uint64_t tag, int error)>;
  virtual void reap(const Report& report) = 0;
};

// io_uring. The descriptors are the caller's and outlive the backend, which waits for what is under way when
// it ends. Errors: the kernel has none, or it is forbidden.
Result<std::unique_ptr<BlockBackend>> make_uring_backend(std::vector<BlockFile> files);
// A few threads with preadv and pwritev, for where there is no io_uring. `thread_begins`: what each does
// first; may be empty.
Result<std::unique_ptr<BlockBackend>> make_thread_backend(std::vector<BlockFile> files,
                                                          std::function<void()> thread_begins = {});

}  // namespace snug
