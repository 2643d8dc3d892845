// Registers of the common configuration (virtio 1.2, 4.1.4.3), as offsets. Plain numbers.
#pragma once

#include <cstdint>

namespace snug::common {

constexpr uint64_t kDeviceFeatureSelect = 0x00;
constexpr uint64_t kDeviceFeature = 0x04;
constexpr uint64_t kDriverFeatureSelect = 0x08;
constexpr uint64_t kDriverFeature = 0x0c;
constexpr uint64_t kConfigVector = 0x10;
constexpr uint64_t kQueueCount = 0x12;
constexpr uint64_t kStatus = 0x14;
constexpr uint64_t kGeneration = 0x15;
constexpr uint64_t kQueueSelect = 0x16;
// Of the queue that is selected.
constexpr uint64_t kQueueSize = 0x18;
constexpr uint64_t kQueueVector = 0x1a;
constexpr uint64_t kQueueEnable = 0x1c;
constexpr uint64_t kQueueNotifyOffset = 0x1e;
constexpr uint64_t kQueueDescriptors = 0x20;
constexpr uint64_t kQueueDriver = 0x28;
constexpr uint64_t kQueueDevice = 0x30;
constexpr uint64_t kQueueNotifyData = 0x38;
constexpr uint64_t kQueueReset = 0x3a;
constexpr uint64_t kSize = 0x3c;

// In registers that name an entry of the MSI-X table: none.
constexpr uint16_t kNoVector = 0xffff;

}  // namespace snug::common
