// The folder in which prepared kernels are kept (vmm/machine/kernel_cache.h writes and maps them), for one
// kernel: whoever has the files has no use for the folder.
//
// Thread: any, one at a time.
#pragma once

#include <string>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug {

class KernelStore {
 public:
  // Keeps nothing.
  KernelStore() = default;
  KernelStore(KernelStore&&) noexcept = default;
  KernelStore& operator=(KernelStore&&) noexcept = default;
  ~KernelStore() { drop_unfinished(); }
  // Makes the folder when it is missing. Errors: cannot be made or opened; another user's or writable for
  // others.
  static Result<KernelStore> open(const std::string& folder);

  // The kernel that all else is about. One that must not be kept (no regular file, or just changed) never is.
  void choose(int kernel_fd);
  // Whether it can be kept.
  bool chosen() const { return !name_.empty(); }
  // For a process that asks another: lets go of the folder.
  void leave() {
    folder_.reset();
    name_.clear();
    unfinished_.clear();
  }
  // Open for reading, what is kept of it; none when nothing is.
  UniqueFd find() const;
  // An empty file for it. Errors: the file system; it must not be kept.
  Result<UniqueFd> begin();
  // That file is whole: under its name from now on, and open for reading; others make room. Errors: the file
  // system; there is none.
  Result<UniqueFd> keep();

 private:
  void drop_unfinished();
  // Removes the files longest unused beyond the bounds.
  void prune() const;

  UniqueFd folder_;
  std::string name_;        // of the kernel's file; "": it is not kept
  std::string unfinished_;  // that of the file that begin() has made
};

}  // namespace snug
