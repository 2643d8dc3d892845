// How a device raises interrupts, without knowing the hypervisor. Any thread; never blocks.
#pragma once

#include <cstdint>
#include <memory>

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

// A message-signalled interrupt that is raised by writing an eventfd.
class MsiVector {
 public:
  virtual ~MsiVector() = default;
  // Adding 1 to this eventfd raises the interrupt. The vector's own.
  virtual int event_fd() const = 0;
  // Routes the vector to a message and connects it.
  virtual Result<void> set(const MsiMessage& message) = 0;
  // Disconnects it; counts written meanwhile stay in the eventfd.
  virtual void mask() = 0;
};

// Where vectors come from. Must outlive them.
class MsiVectorSource {
 public:
  virtual ~MsiVectorSource() = default;
  // A new, masked vector. Errors: no descriptor or vector left.
  virtual Result<std::unique_ptr<MsiVector>> vector() = 0;
};

// Raises messages.
class MsiSink {
 public:
  virtual ~MsiSink() = default;
  virtual void signal(const MsiMessage& message) = 0;
};

}  // namespace snug
