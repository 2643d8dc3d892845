// The working of SHA-256 on whole blocks (FIPS 180-4, 6.2.2), plainly and by the processor's own
// instructions, which take a fifth of the time. For sha256.h. Thread: any.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace snug {

constexpr size_t kSha256Block = 64;  // bytes
using Sha256State = std::array<uint32_t, 8>;

// `blocks`: a multiple of kSha256Block bytes.
void sha256_blocks_plainly(Sha256State& state, std::span<const std::byte> blocks);

// Whether this processor has them (SHA extensions of x86).
bool has_sha256_instructions();
// Where it has.
void sha256_blocks_by_instructions(Sha256State& state, std::span<const std::byte> blocks);

}  // namespace snug
