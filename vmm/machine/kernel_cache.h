// Kernels as they lie in guest memory, one file each, in a folder of the user's own. A later boot of the same
// kernel maps that file copy-on-write (boot/prepared.h): nothing is unpacked or copied, and the guests of one
// kernel share its pages on the host.
//
// A file is named after the kernel's identity (device, inode, size, time of change), written once and never
// changed. Whatever is wrong with the folder or a file, the kernel is loaded as without a cache.
//
// Thread: the one that builds machines. Several processes may use one folder.
#pragma once

#include <sys/stat.h>

#include <string>

#include "boot/kernel.h"
#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/guest_memory.h"

namespace snug {

class KernelCache {
 public:
  // A cache that is off: load() is boot::load_kernel() and boot::randomise_addresses().
  KernelCache() = default;
  // Makes the folder (its parents too) where it is missing. Errors: cannot be made or opened; another user's
  // or writable for others.
  static Result<KernelCache> open(const std::string& folder);

  // Errors: those of boot::load_kernel().
  Result<boot::LoadedKernel> load(int kernel_fd, const GuestMemory& memory,
                                  const boot::Placement& placement = {}) const;

 private:
  Result<boot::LoadedKernel> load_unmoved(int kernel_fd, const GuestMemory& memory,
                                          const boot::Placement& placement) const;
  Result<boot::LoadedKernel> load_prepared(const std::string& name, const GuestMemory& memory,
                                           const boot::Placement& placement) const;
  Result<void> store(const std::string& name, const boot::LoadedKernel& kernel,
                     const GuestMemory& memory) const;
  // Removes the files longest unused beyond the cache's bounds.
  void prune() const;

  UniqueFd folder_;
};

}  // namespace snug
