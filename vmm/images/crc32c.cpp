#include "vmm/images/crc32c.h"

namespace snug::images {

uint32_t crc32c(uint32_t start, std::span<const std::byte> bytes) {
  uint32_t crc = start;
  // Bit by bit: one block an image is all that it is used for.
  for (const std::byte byte : bytes) {
    crc ^= static_cast<uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78 : 0);
  }
  return crc;
}

}  // namespace snug::images
