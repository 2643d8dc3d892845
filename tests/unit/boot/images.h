// Kernels made for tests: ELF files, packed payloads of every format, bzImages, and descriptors to load them
// from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "boot/payload.h"
#include "vmm/base/unique_fd.h"

namespace snug::boot::test {

using Bytes = std::vector<std::byte>;

Bytes bytes_of(std::string_view text);
// Deterministic filling that packs well but not to nothing.
Bytes pattern(size_t size, uint32_t seed = 1);
// A memfd with the content.
UniqueFd file_of(std::span<const std::byte> content);

struct Segment {
  uint32_t type = 1;  // PT_LOAD
  uint64_t gpa = 0x100000;
  uint64_t virtual_address = 0x100000;
  Bytes content;
  std::optional<uint64_t> memory_size;             // content's size when not given
  std::optional<uint64_t> file_offset, file_size;  // where the content lands when not given
  uint64_t alignment = 4096;
};

struct Elf {
  bool is_64 = true;
  uint16_t type = 2;
  uint16_t machine = 62;
  uint64_t entry = 0x100000;
  std::vector<Segment> segments;
  std::optional<uint64_t> phoff;
  std::optional<uint16_t> phnum, phentsize;

  Bytes build() const;
};

// A note as the file has it, padded to 4.
Bytes note(std::string_view owner, uint32_t type, std::span<const std::byte> descriptor);
Bytes pvh_note(uint32_t entry);

// Two segments at 1 MiB and 2 MiB with room for bss, entered at 1 MiB + 0x10.
Elf small_kernel(size_t size = 20000);

// The packed stream, without a size behind it (gzip's own trailer apart).
Bytes pack(PayloadFormat format, std::span<const std::byte> plain);

struct BzImage {
  uint16_t version = 0x020f;
  uint8_t setup_sects = 3;
  uint8_t loadflags = 1;
  uint16_t xloadflags = 0x3;
  uint64_t pref_address = 0x200000;
  uint32_t init_size = 0x100000;
  uint32_t initrd_addr_max = 0x7fffffff;
  uint32_t cmdline_size = 2047;
  std::optional<uint32_t> payload_offset, payload_length;
  Bytes payload;  // with whatever ends it

  Bytes build() const;
};

// The payload as the kernel's build makes it: packed, with the unpacked size behind it.
Bytes packed_payload(PayloadFormat format, std::span<const std::byte> plain);
BzImage bzimage_of(PayloadFormat format, std::span<const std::byte> plain);

// Deterministic pseudo-random numbers (xorshift).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 1) {}
  uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  uint64_t below(uint64_t bound) { return next() % bound; }

 private:
  uint64_t state_;
};

}  // namespace snug::boot::test
