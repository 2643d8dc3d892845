#include "boot/reset_vector.h"

#include <array>
#include <cstdint>
#include <span>

#include "vmm/core/address_map.h"

namespace snug::boot {

Result<void> write_reset_vector(const GuestMemory& memory) {
  // 16-bit:  mov al, kAcpiResetValue; mov dx, kAcpiReset; out dx, al; 1: hlt; jmp 1b
  constexpr std::array<uint8_t, 9> kCode{
      0xb0, map::kAcpiResetValue, 0xba, map::kAcpiReset & 0xff, map::kAcpiReset >> 8, 0xee, 0xf4, 0xeb, 0xfd};
  if (!memory.write(map::kResetVector, std::as_bytes(std::span(kCode))))
    return fail("no memory at the reset vector");
  return {};
}

}  // namespace snug::boot
