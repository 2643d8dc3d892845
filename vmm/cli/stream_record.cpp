#include "vmm/cli/stream_record.h"

#include <zlib.h>

#include "vmm/base/endian.h"

namespace snug::cli {

std::array<std::byte, kRecordHead> record_bytes(const Record& record) {
  std::array<std::byte, kRecordHead> bytes{};
  const std::span<std::byte> all(bytes);
  store_le(all.first(1), record.kind);
  store_le(all.subspan(1, 8), record.a);
  store_le(all.subspan(9, 4), record.b);
  return bytes;
}

Record record_of(std::span<const std::byte, kRecordHead> bytes) {
  return {.kind = static_cast<uint8_t>(load_le(bytes.first(1))),
          .a = load_le(bytes.subspan(1, 8)),
          .b = static_cast<uint32_t>(load_le(bytes.subspan(9, 4)))};
}

uint32_t record_checksum(std::span<const std::byte> head, std::span<const std::byte> body) {
  const auto add = [](uLong sum, std::span<const std::byte> bytes) {
    return ::crc32_z(sum, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
  };
  return static_cast<uint32_t>(body.empty() ? add(0, head) : add(add(0, head), body));
}

}  // namespace snug::cli
