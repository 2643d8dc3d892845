// The contents of a folder in EROFS: blocks of entries with their names behind them, sorted by bytes so that
// the kernel finds a name by halves. Thread: one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace snug::images {

class ErofsFolder {
 public:
  // Names by ascending bytes, "." and ".." among them; 1 to 255 bytes each, and alive as long as this is.
  void add(std::string_view name, uint64_t nid, uint8_t type);
  // Of the contents, in bytes: whole blocks, and what the last one uses.
  uint64_t size() const;
  // The contents, `size()` bytes.
  std::string bytes() const;

 private:
  struct Entry {
    std::string_view name;
    uint64_t nid;
    uint8_t type;
  };
  std::vector<Entry> entries_;
  std::vector<size_t> block_starts_;  // the first entry of each block
  size_t used_ = 0;                   // of the last block
};

}  // namespace snug::images
