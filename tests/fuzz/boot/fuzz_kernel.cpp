// A kernel file (bzImage, ELF or neither) through the whole loader and on to the CPU's entry state.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <optional>

#include "boot/entry.h"
#include "boot/kernel.h"
#include "vmm/base/assertion.h"
#include "vmm/base/checked.h"
#include "vmm/base/unique_fd.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace snug;
  static const UniqueFd file(::memfd_create("kernel", MFD_CLOEXEC));
  SNUG_ASSERT(::ftruncate(file.get(), 0) == 0);
  SNUG_ASSERT(::pwrite(file.get(), data, size, 0) == static_cast<ssize_t>(size));
  const auto memory = GuestMemory::create(64 * kMiB);
  SNUG_ASSERT(memory);
  const auto kernel = boot::load_kernel(file.get(), *memory);
  if (!kernel) {
    SNUG_ASSERT(!kernel.error().message.empty());
    return 0;
  }
  // What a caller may rely on.
  SNUG_ASSERT(kernel->start >= kMiB && kernel->start <= kernel->entry && kernel->entry < kernel->end);
  SNUG_ASSERT(kernel->end <= memory->low_end());
  const auto state = boot::prepare_entry(*memory, *kernel, std::nullopt, "");
  SNUG_ASSERT(state && state->rip == kernel->entry);
  return 0;
}
