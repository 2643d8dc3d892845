// The packed kernel inside a bzImage (Linux boot protocol 2.08+, payload_offset), unpacked on the host.
//
// The stream is hostile: every decoder is bounded by `limit` and by the source, and a bad stream is an error.
// One thread; nothing is kept between calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "boot/byte_stream.h"
#include "vmm/base/result.h"

namespace snug::boot {

enum class PayloadFormat { kElf, kGzip, kBzip2, kLzma, kXz, kLzo, kLz4, kZstd };

// How many first bytes identify_payload looks at.
constexpr size_t kPayloadMagicSize = 16;

// Recognised by its first bytes; nothing when it is none of them. Fewer bytes are allowed.
std::optional<PayloadFormat> identify_payload(std::span<const std::byte> head);

// "LZ4", "gzip", ...
std::string_view payload_format_name(PayloadFormat format);

// Whether unpack() handles the format (all but LZO).
bool can_unpack(PayloadFormat format);

// Unpacks the whole of `source` into `sink`; returns the number of bytes written, which is exactly `expected`
// (the number that ends every bzImage payload; the source must not include those four bytes unless they are
// part of the format, as in gzip). Errors: a broken or truncated stream, more or fewer bytes than `expected`,
// whatever source and sink return.
Result<void> unpack(PayloadFormat format, ByteSource& source, ByteSink& sink, uint64_t expected);

}  // namespace snug::boot
