// SHA-256 (FIPS 180-4): the digests that images are named by. Thread: one at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "vmm/base/sha256_blocks.h"

namespace snug {

class Sha256 {
 public:
  void add(std::span<const std::byte> bytes);
  // Of all that was added, as 64 digits, lower case. Nothing may be added behind it.
  std::string hex_digest();

 private:
  static constexpr size_t kBlock = kSha256Block;
  void take(std::span<const std::byte> blocks);

  Sha256State state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, kBlock> rest_{};  // of a block that is not full
  uint64_t bytes_ = 0;                    // added so far
};

// "sha256:" and the digits.
std::string sha256_digest(std::span<const std::byte> bytes);

}  // namespace snug
