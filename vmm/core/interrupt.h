// How a device raises interrupts, without knowing the hypervisor. Any thread; never blocks.
#pragma once

#include <cstdint>

#include "vmm/base/result.h"

namespace snug {

// One input of an interrupt controller.
class IrqLine {
 public:
  virtual ~IrqLine() = default;
  // Level of the line; setting it to what it is changes nothing.
  virtual void set(bool asserted) = 0;
};

// A message-signalled interrupt (PCI 3.0 6.8): address and data as the guest wrote them.
struct MsiMessage {
  uint64_t address = 0;
  uint32_t data = 0;
  bool operator==(const MsiMessage&) const = default;
};

// Raises messages.
class MsiSink {
 public:
  virtual ~MsiSink() = default;
  virtual void signal(const MsiMessage& message) = 0;
};

}  // namespace snug
