// A device whose registers are one byte wide. A wider access is what the ISA bus makes of it: byte accesses
// to successive registers, lowest first.
//
// Thread: the bus's caller, with the device's lock held.
#pragma once

#include "vmm/core/bus.h"
#include "vmm/core/state.h"

namespace snug {

class ByteRegisters : public BusDevice {
 public:
  void read(uint64_t offset, std::span<std::byte> data) final {
    for (std::byte& byte : data) byte = std::byte{read_byte(offset++)};
  }
  void write(uint64_t offset, std::span<const std::byte> data) final {
    for (const std::byte byte : data) write_byte(offset++, std::to_integer<uint8_t>(byte));
  }

 protected:
  // Any offset: registers that do not exist read as all ones and ignore writes.
  virtual uint8_t read_byte(uint64_t offset) = 0;
  virtual void write_byte(uint64_t offset, uint8_t value) = 0;
};

}  // namespace snug
