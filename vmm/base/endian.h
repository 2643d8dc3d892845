// Little-endian integers without alignment, for structures that a specification lays down byte by byte.
// sizeof(Little<uint32_t>) == 4, alignof == 1.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace snug {

static_assert(std::endian::native == std::endian::little, "snug runs on x86-64 hosts");

template <std::unsigned_integral T>
class Little {
 public:
  Little() = default;
  Little(T value) { *this = value; }  // NOLINT(google-explicit-constructor): it is an integer
  Little& operator=(T value) {
    std::memcpy(bytes_.data(), &value, sizeof value);
    return *this;
  }
  operator T() const {  // NOLINT(google-explicit-constructor)
    T value;
    std::memcpy(&value, bytes_.data(), sizeof value);
    return value;
  }

 private:
  std::array<std::byte, sizeof(T)> bytes_{};
};

using le16 = Little<uint16_t>;
using le32 = Little<uint32_t>;
using le64 = Little<uint64_t>;

// The little-endian value of up to 8 bytes (a register access of any width).
inline uint64_t load_le(std::span<const std::byte> bytes) {
  uint64_t value = 0;
  std::memcpy(&value, bytes.data(), bytes.size() < 8 ? bytes.size() : 8);
  return value;
}

// Stores the low bytes of `value`; bytes past the eighth become zero.
inline void store_le(std::span<std::byte> bytes, uint64_t value) {
  std::memset(bytes.data(), 0, bytes.size());
  std::memcpy(bytes.data(), &value, bytes.size() < 8 ? bytes.size() : 8);
}

}  // namespace snug
