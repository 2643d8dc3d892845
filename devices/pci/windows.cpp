#include "devices/pci/windows.h"

#include <algorithm>

#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

namespace snug {
namespace {

constexpr uint64_t kAddressPort = 0;
constexpr uint64_t kDataPorts = 4;

constexpr uint32_t kEnable = 0x80000000;
constexpr uint32_t kAddressMask = 0x80fffffc;  // bits 30-24 are reserved, 1-0 always 0
constexpr unsigned kBusShift = 16;
constexpr uint32_t kBusMask = 0xff;
constexpr unsigned kFunctionShift = 8;  // device and function
constexpr uint32_t kFunctionMask = 0xff;
constexpr uint32_t kRegisterMask = 0xfc;
constexpr unsigned kEcamFunctionShift = 12;

bool is_address(uint64_t offset, size_t length) { return offset == kAddressPort && length == 4; }

}  // namespace

void PciEcam::read(uint64_t offset, std::span<std::byte> data) { root_.lock()->read(offset, data); }

void PciEcam::write(uint64_t offset, std::span<const std::byte> data) { root_.lock()->write(offset, data); }

void PciConfigPorts::read(uint64_t offset, std::span<std::byte> data) {
  uint64_t ecam_offset = 0;
  if (is_address(offset, data.size())) {
    store_le(data, address_);
  } else if (locate(offset, data.size(), ecam_offset)) {
    root_.lock()->read(ecam_offset, data);
  } else {
    std::fill(data.begin(), data.end(), std::byte{0xff});
  }
}

void PciConfigPorts::write(uint64_t offset, std::span<const std::byte> data) {
  uint64_t ecam_offset = 0;
  if (is_address(offset, data.size())) {
    address_ = static_cast<uint32_t>(load_le(data)) & kAddressMask;
  } else if (locate(offset, data.size(), ecam_offset)) {
    root_.lock()->write(ecam_offset, data);
  }
}

bool PciConfigPorts::locate(uint64_t offset, size_t length, uint64_t& ecam_offset) const {
  if ((address_ & kEnable) == 0 || ((address_ >> kBusShift) & kBusMask) != 0) return false;
  if (offset < kDataPorts || !range_within(offset - kDataPorts, length, 4)) return false;
  const uint64_t function = (address_ >> kFunctionShift) & kFunctionMask;
  ecam_offset = (function << kEcamFunctionShift) + (address_ & kRegisterMask) + (offset - kDataPorts);
  return true;
}

}  // namespace snug
