// CRC-32C (Castagnoli, reflected), as EROFS checks its superblock: the caller gives the start value, nothing
// is inverted. Thread: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace snug::images {

uint32_t crc32c(uint32_t start, std::span<const std::byte> bytes);

}  // namespace snug::images
