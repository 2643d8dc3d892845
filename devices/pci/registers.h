// Layout of configuration space: PCI Local Bus 3.0 chapter 6, figures 6-1 and 6-2. Plain numbers.
#pragma once

#include <cstdint>

namespace snug::pci {

constexpr uint16_t kVendorId = 0x00;
constexpr uint16_t kDeviceId = 0x02;
constexpr uint16_t kCommand = 0x04;
constexpr uint16_t kStatus = 0x06;
constexpr uint16_t kRevision = 0x08;
constexpr uint16_t kClassCode = 0x09;  // 3 bytes: programming interface, subclass, class
constexpr uint16_t kCacheLineSize = 0x0c;
constexpr uint16_t kHeaderType = 0x0e;
constexpr uint16_t kBar0 = 0x10;  // six of 4 bytes
constexpr uint16_t kBarsEnd = 0x28;
constexpr uint16_t kSubsystemVendorId = 0x2c;
constexpr uint16_t kSubsystemId = 0x2e;
constexpr uint16_t kExpansionRom = 0x30;
constexpr uint16_t kCapabilities = 0x34;
constexpr uint16_t kInterruptLine = 0x3c;
constexpr uint16_t kInterruptPin = 0x3d;
constexpr uint16_t kHeaderEnd = 0x40;

// Command, 6.2.2.
constexpr uint16_t kCommandMemory = 0x0002;
constexpr uint16_t kCommandBusMaster = 0x0004;
constexpr uint16_t kCommandParity = 0x0040;
constexpr uint16_t kCommandSerr = 0x0100;
constexpr uint16_t kCommandIntxDisable = 0x0400;

// Status, 6.2.3.
constexpr uint16_t kStatusInterrupt = 0x0008;
constexpr uint16_t kStatusCapabilityList = 0x0010;
constexpr uint16_t kStatusErrors = 0xf900;  // write 1 to clear

// Base address registers, 6.2.5.1.
constexpr unsigned kBarCount = 6;
constexpr uint32_t kBarType64 = 0x4;
constexpr uint32_t kBarPrefetchable = 0x8;

// Capability IDs, appendix H.
constexpr uint8_t kCapabilityMsi = 0x05;
constexpr uint8_t kCapabilityVendor = 0x09;
constexpr uint8_t kCapabilityExpress = 0x10;
constexpr uint8_t kCapabilityMsix = 0x11;

}  // namespace snug::pci
