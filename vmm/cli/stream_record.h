// What a snapshot's stream is made of. All numbers are little-endian.
//
//   head     "snugsend", u32 format, u8 bytes of its name, name
//   record   u8 kind, u64 a, u32 b, b bytes, u32 CRC-32 of all that before it, from the record's kind on
//
//   kind 1   a file begins: a bytes long, b bytes of its name; what no record gives it is zeros
//   kind 2   b bytes of that file, from a on; behind what it was given before
//   kind 3   the end: a files in all, and none of b
//
// Format 2, of a machine that runs while it is sent, has besides:
//
//   kind 4   b bytes of the memory, from a on, in the place of what is there; the memory is the file that has
//            begun last
//   kind 5   the same with zeros; the b bytes are a u64, how many
//   kind 6   before all files: b bytes of JSON, what the machine must find where it goes on
//
// Any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace snug::cli {

constexpr std::string_view kStreamMagic = "snugsend";
constexpr uint32_t kStreamOfFiles = 1;  // formats
constexpr uint32_t kStreamOfMachine = 2;
constexpr size_t kStreamNameMax = 64;           // bytes
constexpr size_t kRecordMax = size_t{1} << 20;  // bytes behind a record's head, and zeros that it tells of

enum class RecordKind : uint8_t { kFile = 1, kData = 2, kEnd = 3, kAgain = 4, kZeros = 5, kFacts = 6 };

struct Record {
  uint8_t kind = 0;
  uint64_t a = 0;
  uint32_t b = 0;
};
constexpr size_t kRecordHead = 13;  // bytes

std::array<std::byte, kRecordHead> record_bytes(const Record& record);
Record record_of(std::span<const std::byte, kRecordHead> bytes);
// CRC-32 of both.
uint32_t record_checksum(std::span<const std::byte> head, std::span<const std::byte> body);

}  // namespace snug::cli
