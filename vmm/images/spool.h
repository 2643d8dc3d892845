// Where file contents wait for the image: one file without a name, written from front to end.
//
// Contents that are zero take no room: a page of zeros is left out, and where many follow each other the file
// gets a hole. What comes out depends on the bytes of a file alone, not on how they were cut when they came.
// Thread: one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/images/content_hash.h"
#include "vmm/images/file_tree.h"

namespace snug::images {

class Spool {
 public:
  // Fewer zeros than this are stored as they are: a file in one piece is mapped faster.
  static constexpr uint64_t kSmallestHole = 64 * 1024;

  // A file without a name in `folder`, which has to have room for the contents of the image. Errors: as
  // open(2).
  static Result<UniqueFd> make_file(const std::string& folder);
  static Result<Spool> create(const std::string& folder) { return Spool(SNUG_TRY(make_file(folder))); }
  // In an empty file of the caller's.
  explicit Spool(UniqueFd file);

  int descriptor() const { return file_.get(); }
  // Bytes of contents stored so far, pages of zeros left out.
  uint64_t stored() const { return stored_; }
  // Extents of the file that is being written, so far.
  size_t extents() const { return extents_.size(); }

  // Contents of one file: begin(), then write() with ascending offsets, then finish().
  void begin();
  // Errors: `offset` lies before what was written; the host's disk.
  Result<void> write(uint64_t offset, std::span<const std::byte> bytes);
  struct Contents {
    std::vector<Extent> extents;
    ContentHash::Value hash{};
  };
  // `size`: of the file; extents end there. Nothing was written behind it.
  Result<Contents> finish(uint64_t size);

 private:
  Result<void> flush();
  Result<void> store(uint64_t file_offset, std::span<const std::byte> pages);

  UniqueFd file_;
  uint64_t end_ = 0;  // of the spool, a multiple of a page
  uint64_t stored_ = 0;
  // Pages that are being put together; they begin at window_offset_ in the file.
  std::vector<std::byte> window_;
  uint64_t window_offset_ = 0;
  size_t window_used_ = 0;
  std::vector<Extent> extents_;
  ContentHash hash_;
};

}  // namespace snug::images
