// Pages that the guest reads as memory: no exit, whatever it reads. Its writes exit as they do elsewhere, but
// for those that need not.
// Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "vmm/base/result.h"

namespace snug {

class PageBinder {
 public:
  virtual ~PageBinder() = default;
  // `pages`, whole and aligned ones, can be read at this guest-physical address from now on; they stay the
  // caller's and outlive the guest. Errors: something else is there, what the hypervisor says.
  virtual Result<void> show(uint64_t gpa, std::span<const std::byte> pages) = 0;
  // Undoes show(): reads exit again. Nothing happens when nothing is shown there.
  virtual void hide(uint64_t gpa) = 0;
  // From now on writes that lie within these bytes may reach their device as late as the guest's next exit:
  // registers without a bit that can be written, whose writes need no exit then.
  virtual Result<void> defer_writes(uint64_t gpa, uint32_t size) = 0;
};

}  // namespace snug
