// Doorbells: guest writes that the kernel turns into an eventfd count, with no exit to user space.
// Any thread, during set-up or with the world stopped.
#pragma once

#include <cstdint>
#include <optional>

#include "vmm/base/result.h"

namespace snug {

enum class AddressSpace { kPort, kMmio };

struct Doorbell {
  AddressSpace space;
  uint64_t address;
  uint32_t width;                 // bytes: 0 (any width, MMIO only), 1, 2, 4 or 8
  std::optional<uint64_t> match;  // only writes of this value ring
};

class DoorbellBinder {
 public:
  virtual ~DoorbellBinder() = default;
  // `event_fd` counts a write from now on; it stays the caller's. Errors: what the hypervisor says.
  virtual Result<void> bind(const Doorbell& doorbell, int event_fd) = 0;
  // Undoes bind() with the same arguments.
  virtual void unbind(const Doorbell& doorbell, int event_fd) = 0;
};

}  // namespace snug
