// What the two console devices share: the device's configuration (virtio 1.2, 5.3.4) and its feature bits
// (5.3.3).
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "vmm/base/endian.h"

namespace snug::virtio_console {

constexpr uint64_t kSize = uint64_t{1} << 0;
constexpr uint64_t kMultiport = uint64_t{1} << 1;
constexpr uint64_t kEmergencyWrite = uint64_t{1} << 2;

constexpr uint64_t kEmergencyOffset = 8;

struct Config {
  uint16_t columns = 0;
  uint16_t rows = 0;
  uint32_t ports = 0;
};

inline void read_config(const Config& config, uint64_t offset, std::span<std::byte> data) {
  std::array<std::byte, 12> image{};
  const std::span<std::byte> all(image);
  store_le(all.subspan(0, 2), config.columns);
  store_le(all.subspan(2, 2), config.rows);
  store_le(all.subspan(4, 4), config.ports);
  if (offset >= image.size()) return;
  const size_t length = std::min<size_t>(data.size(), image.size() - offset);
  std::copy_n(image.begin() + static_cast<ptrdiff_t>(offset), length, data.begin());
}

}  // namespace snug::virtio_console
