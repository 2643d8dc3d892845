#include "vmm/base/sha256.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace snug {
void Sha256::take(std::span<const std::byte> blocks) {
  static const bool by_instructions = has_sha256_instructions();
  if (by_instructions) return sha256_blocks_by_instructions(state_, blocks);
  sha256_blocks_plainly(state_, blocks);
}

void Sha256::add(std::span<const std::byte> bytes) {
  size_t used = bytes_ % kBlock;
  bytes_ += bytes.size();
  while (!bytes.empty()) {
    if (used == 0 && bytes.size() >= kBlock) {
      const size_t whole = bytes.size() - bytes.size() % kBlock;
      take(bytes.first(whole));
      bytes = bytes.subspan(whole);
      continue;
    }
    const size_t count = std::min(bytes.size(), kBlock - used);
    std::memcpy(rest_.data() + used, bytes.data(), count);
    bytes = bytes.subspan(count);
    used = (used + count) % kBlock;
    if (used == 0) take(rest_);
  }
}

// 5.1.1: a one, zeros, and the length in bits at the end of a block.
std::string Sha256::hex_digest() {
  const uint64_t bits = bytes_ * 8;
  std::array<std::byte, 2 * kBlock> padding{std::byte{0x80}};
  const size_t count = (bytes_ % kBlock < kBlock - 8 ? kBlock : 2 * kBlock) - bytes_ % kBlock;
  for (size_t i = 0; i < 8; ++i) padding[count - 1 - i] = static_cast<std::byte>(bits >> (8 * i));
  add(std::span(padding).first(count));
  std::string text;
  for (const uint32_t word : state_) text += fmt::format("{:08x}", word);
  return text;
}

std::string sha256_digest(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.add(bytes);
  return "sha256:" + hash.hex_digest();
}

}  // namespace snug
