// What the code of both layouts of a ring shares: descriptors have 16 bytes and the same flags (virtio 1.2,
// 2.7.5 and 2.8.13).
#pragma once

#include <cstdint>
#include <string>

#include "vmm/core/guest_memory.h"

namespace snug {

constexpr uint64_t kDescriptorSize = 16;
constexpr uint16_t kDescriptorNext = 1;
constexpr uint16_t kDescriptorWrite = 2;
constexpr uint16_t kDescriptorIndirect = 4;

// "" or what is wrong with the place of a part of a ring.
std::string check_ring_part(const GuestMemory& memory, const char* part, uint64_t gpa, uint64_t size,
                            uint64_t alignment);

}  // namespace snug
