#include "vmm/images/content_hash.h"

#include "vmm/base/endian.h"

namespace snug::images {

namespace {

// The product's halves folded onto each other: every bit of both factors reaches every bit of it.
uint64_t fold(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

}  // namespace

void ContentHash::mix(uint64_t a, uint64_t b) {
  const uint64_t low = fold(a ^ low_, b ^ 0xa4093822299f31d0);
  high_ = fold(b ^ high_, a ^ 0x082efa98ec4e6c89) + low_;
  low_ = low;
}

void ContentHash::add(std::span<const std::byte> piece) {
  const size_t size = piece.size();
  while (piece.size() >= 16) {
    mix(load_le(piece.first(8)), load_le(piece.subspan(8, 8)));
    piece = piece.subspan(16);
  }
  if (!piece.empty()) mix(load_le(piece), piece.size() > 8 ? load_le(piece.subspan(8)) : 0);
  add(uint64_t{size});
}

void ContentHash::add(uint64_t number) { mix(number, 0x452821e638d01377); }

ContentHash::Value ContentHash::value() const {
  const uint64_t low = fold(low_ ^ 0xbe5466cf34e90c6c, high_ ^ 0xc0ac29b7c97c50dd);
  return {low, fold(low ^ 0x3f84d5b5b5470917, high_ ^ 0x9216d5d98979fb1b)};
}

}  // namespace snug::images
