// Opens what a disk of the spec names, and keeps others from writing to it meanwhile.
//
// Thread: any, before the machine is built.
#pragma once

#include "devices/virtio/block/disk.h"
#include "devices/virtio/pmem/pmem.h"
#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/spec/spec.h"

namespace snug {

// The open files of one disk. They outlive resets of the guest, and what is in an overlay with them.
class DiskFile {
 public:
  // The lock (F_OFD_SETLK: shared for disks that are not written to, else exclusive) lasts as long as this.
  // The overlay of an ephemeral disk is a file without a name in $TMPDIR, or else /var/tmp.
  // Errors: what open says; a file that another has locked; an empty one; no direct I/O there; one that
  // cannot be memory of a guest (pmem_problem()).
  static Result<DiskFile> open(const DiskSpec& disk);
  // The same for a machine that goes on where another stood, of which `overlay` holds what that one had
  // written to an ephemeral disk (disk_image.h); -1: nothing. Errors: besides, an overlay that is none, and a
  // disk that would be written to: what it holds now is of another moment.
  static Result<DiskFile> open_saved(const DiskSpec& disk, int overlay);

  // Of a machine that another process of this host has run so far: `file` and, of an ephemeral one, `overlay`
  // are what that one had open, and the lock is with whoever keeps them. Until restore() its overlay is
  // empty. Errors: what cannot be asked of them; no direct I/O.
  static Result<DiskFile> adopt(const DiskSpec& disk, UniqueFd file, UniqueFd overlay);
  // Which sectors the overlay has.
  void restore(SectionReader& map) { restore_map(written_, map); }

  // Whether it is the guest's memory: pmem() then, else config().
  bool is_pmem() const { return pmem_; }
  // The file itself, this one's.
  int file() const { return fd_.get(); }
  // Of an ephemeral one, or -1.
  int overlay() const { return overlay_fd_.get(); }
  // For a machine; points to this. With the size that the file has now.
  DiskConfig config();
  // Errors: with that size it cannot be memory of a guest.
  Result<PmemFile> pmem() const;

 private:
  DiskFile() = default;
  Result<void> measure(const std::string& path);
  void take(const DiskSpec& disk);
  Result<void> open_overlay();
  Result<void> use_overlay(const std::string& place);
  Result<void> open_direct();

  UniqueFd fd_;
  UniqueFd lock_fd_;  // the same file, open once more
  UniqueFd overlay_fd_;
  std::vector<UniqueFd> direct_fds_;
  std::vector<BlockFile> files_;
  SectorMap written_;
  BlockEngine engine_ = BlockEngine::kAuto;
  bool thread_ = false;
  bool pmem_ = false;
  BlockConfig block_;
};

}  // namespace snug
