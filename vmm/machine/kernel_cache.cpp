#include "vmm/machine/kernel_cache.h"

#include "boot/prepared.h"
#include "vmm/base/log.h"

namespace snug {

Result<boot::LoadedKernel> KernelCache::load(int kernel_fd, const GuestMemory& memory,
                                             const boot::Placement& placement) {
  auto kernel = SNUG_TRY(load_unmoved(kernel_fd, memory, placement));
  SNUG_TRY(boot::randomise_addresses(memory, kernel, placement));
  return kernel;
}

// What is kept is the kernel before its virtual addresses are moved: every boot moves them anew.
Result<boot::LoadedKernel> KernelCache::load_unmoved(int kernel_fd, const GuestMemory& memory,
                                                     const boot::Placement& placement) {
  if (files_.kept) {
    auto prepared = boot::map_prepared(files_.kept.get(), memory, placement);
    if (prepared) return prepared;
    log_debug("kernel cache: {}", prepared.error().text());
    files_.kept.reset();
  }
  auto kernel = SNUG_TRY(boot::load_kernel(kernel_fd, memory, placement));
  if (auto stored = store(kernel, memory); !stored) log_debug("kernel cache: {}", stored.error().text());
  return kernel;
}

Result<void> KernelCache::store(const boot::LoadedKernel& kernel, const GuestMemory& memory) {
  if (!files_.begin) return {};
  {
    const UniqueFd file = SNUG_TRY(files_.begin());
    SNUG_TRY(boot::write_prepared(file.get(), kernel, memory));
  }
  files_.kept = SNUG_TRY(files_.keep());
  return {};
}

}  // namespace snug
