// The file that an image is written to: metadata through a buffer, contents from file to file.
// Thread: one at a time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "vmm/base/result.h"
#include "vmm/images/content_hash.h"
#include "vmm/images/progress.h"

namespace snug::images {

class ErofsOutput {
 public:
  ErofsOutput(int image, int spool, uint64_t total, const ProgressCallback& progress);

  // Bytes at ascending offsets; what lies between stays zero. They are part of hash().
  Result<void> write(uint64_t offset, std::string_view bytes);
  // What write() has kept back.
  Result<void> flush();
  // From the spool: shared with it where the host's file system can.
  Result<void> copy(uint64_t offset, uint64_t spool_offset, uint64_t length);
  // Past hash(), at once.
  Result<void> put(uint64_t offset, std::string_view bytes);

  ContentHash& hash() { return hash_; }

 private:
  Result<void> advance(uint64_t bytes);

  int image_;
  int spool_;
  Progress state_;
  const ProgressCallback& progress_;
  std::string buffer_;
  uint64_t buffer_offset_ = 0;
  uint64_t since_report_ = 0;
  bool shares_ = true;  // copy_file_range works
  ContentHash hash_;
};

}  // namespace snug::images
