// The entries of an open folder, from any offset that was told before.
//
// Thread: one at a time (mutex()).
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string_view>
#include <vector>

#include "vmm/shares/outcome.h"

namespace snug {

class DirectoryReader {
 public:
  struct Entry {
    std::string_view name;  // until the next call
    uint64_t number = 0;
    uint64_t next = 0;  // the offset of the one behind it
    uint8_t type = 0;   // DT_*
  };

  std::mutex& mutex() { return mutex_; }

  // Offsets are the host's; 0 is the beginning.
  Outcome<> seek(int fd, uint64_t offset);
  // The entry at the offset, or one without a name at the end. step() goes on to the next.
  Outcome<Entry> look(int fd);
  void step();

 private:
  static constexpr uint64_t kNowhere = UINT64_MAX;

  std::mutex mutex_;
  uint64_t offset_ = 0;
  std::vector<std::byte> buffer_;  // what has been read and not been stepped over, from taken_ on
  size_t taken_ = 0;
};

}  // namespace snug
