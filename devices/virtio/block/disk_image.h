// A disk that a guest writes to, as a file beside a snapshot: of the same moment as the guest's memory.
//
// A disk that lasts is copied as it is, byte by byte. Of an ephemeral one its overlay is:
//
//   0           the sectors that the overlay has, each at its place on the disk; the rest is a hole
//   M           a page of 4096 bytes: "snugover", u32 format, u32 zero, u64 bytes of the disk; then zeros
//   M + 4096    which sectors those are: u64 words, a bit for each sector, the lowest the first
//
// M is the size of the disk, up to the next multiple of 4096. Numbers are little-endian.
//
// Where the file system shares blocks between files (reflinks: btrfs, XFS, bcachefs) the copy takes no time
// and no room. Where not, all of it is copied while the guest runs and what has changed meanwhile is noted,
// so that little is left for the moment at which it stands still.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "devices/virtio/block/block.h"
#include "devices/virtio/block/overlay.h"
#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug {

constexpr uint32_t kOverlayFormat = 1;

// One that can be copied. All of it is the owner's and outlives the writer.
struct DiskSource {
  VirtioBlock* device = nullptr;
  std::mutex* mutex = nullptr;         // that whoever works on the device holds
  int file = -1;                       // that the guest's writes go to
  const SectorMap* written = nullptr;  // of an ephemeral disk
};

// Thread: one at a time, none of those that do the device's work; the destructor without the device's lock.
class DiskImageWriter {
 public:
  // `file`: an empty one, open for writing. `cancelled`: whether nobody wants it any more; the caller's.
  DiskImageWriter(const DiskSource& source, UniqueFd file, const std::atomic<bool>& cancelled);
  DiskImageWriter(DiskImageWriter&&) noexcept = default;
  ~DiskImageWriter();

  // While the guest runs, once at most: nearly all of it. Errors: of the files; cancelled.
  Result<void> write_ahead();
  // The device has settled, and its lock is held: the rest, or all of it. Errors: of the files.
  Result<void> write_rest();
  // What was written; 0: its blocks are shared.
  uint64_t bytes_written() const { return written_; }

 private:
  bool clone();
  Result<void> copy_data(uint64_t size);
  Result<void> copy(uint64_t from, uint64_t to);
  Result<void> copy_again(const BlockChanges& changes, uint64_t size);
  Result<void> put(std::span<const std::byte> bytes, uint64_t offset);
  Result<void> write_map(uint64_t size);

  enum class Stage {
    kNothing,  // is there
    kShared,   // was, once: so it can be
    kCopied,   // and changes are noted since
  };

  DiskSource source_;
  UniqueFd file_;
  const std::atomic<bool>* cancelled_;
  Stage stage_ = Stage::kNothing;
  uint64_t copied_to_ = 0;  // bytes of the disk, from its start
  uint64_t written_ = 0;
  std::vector<std::byte> buffer_;
};

// Puts what `image` holds of an overlay into `overlay`, an empty file for a disk of `size` bytes, and marks
// its sectors in `written`, of which none are. Errors: it is none, or another disk's; the files.
Result<void> read_overlay_image(int image, uint64_t size, int overlay, SectorMap& written);

}  // namespace snug
