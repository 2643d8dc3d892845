// A kernel kept as it lies in guest memory (boot/prepared.h): loading it again maps it copy-on-write, without
// unpacking and copying, and guests of one kernel share its pages. What it is given are files; where they lie
// is the giver's business.
//
// Thread: the loop's, before the guest runs.
#pragma once

#include <functional>

#include "boot/kernel.h"
#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/guest_memory.h"

namespace snug {

class KernelCache {
 public:
  struct Files {
    UniqueFd kept;  // what is kept already; or none
    // An empty file, and that it is whole: then it is kept, and open for reading. Both or none.
    std::function<Result<UniqueFd>()> begin;
    std::function<Result<UniqueFd>()> keep;
  };
  // Keeps nothing.
  KernelCache() = default;
  explicit KernelCache(Files files) : files_(std::move(files)) {}

  // Errors: those of boot::load_kernel().
  Result<boot::LoadedKernel> load(int kernel_fd, const GuestMemory& memory,
                                  const boot::Placement& placement = {});
  // Nothing is kept from now on; what is kept already is still used.
  void seal() { files_.begin = files_.keep = nullptr; }

 private:
  Result<boot::LoadedKernel> load_unmoved(int kernel_fd, const GuestMemory& memory,
                                          const boot::Placement& placement);
  Result<void> store(const boot::LoadedKernel& kernel, const GuestMemory& memory);

  Files files_;
};

}  // namespace snug
