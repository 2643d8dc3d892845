// Which parts of a file one owner has locked, beside the host, which does not say whose a lock is.
//
// Thread: one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include "vmm/shares/fuse_abi.h"

namespace snug {

class LockRanges {
 public:
  // What has more is not known any more, and is in nobody's way.
  static constexpr size_t kMax = 1024;

  // As fcntl(2) does it: what it was before ends there. Of a lock that the host has granted.
  void set(const fuse_file_lock& lock);
  // Nothing is known from now on.
  void forget();
  size_t size() const { return ranges_.size(); }
  bool is_in_the_way_of(const fuse_file_lock& lock) const;

 private:
  struct Range {
    uint64_t end;  // the last byte
    uint32_t type;
  };
  void cut_out(uint64_t start, uint64_t end);
  void join(std::map<uint64_t, Range>::iterator at);

  bool known_ = true;
  std::map<uint64_t, Range> ranges_;  // by their first byte
};

}  // namespace snug
