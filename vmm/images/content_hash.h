// A 128-bit hash of file contents and of an image: tells apart what nobody has made alike on purpose, fast.
// Not for anything that must withstand an enemy: what it says is equal is compared. Thread: one at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace snug::images {

class ContentHash {
 public:
  using Value = std::array<uint64_t, 2>;

  // How bytes are cut into pieces counts: a piece's end is part of what is hashed.
  void add(std::span<const std::byte> piece);
  void add(uint64_t number);
  Value value() const;

 private:
  void mix(uint64_t a, uint64_t b);
  // Digits of pi.
  uint64_t low_ = 0x243f6a8885a308d3;
  uint64_t high_ = 0x13198a2e03707344;
};

}  // namespace snug::images
