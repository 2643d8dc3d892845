// Sizes ("512M") and durations ("1m30s") as text. Errors say what is expected, without naming a key.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "vmm/base/result.h"

namespace snug {

// A whole number with a binary suffix: K M G T or KiB MiB GiB TiB, any case. Bytes. Does not wrap.
Result<uint64_t> parse_size(std::string_view text);
// With the largest suffix that leaves a whole number: "2G", "1536M"; plain below or between KiB.
std::string format_size(uint64_t bytes);

// Hours, minutes, seconds, milliseconds in this order, each at most once: "500ms", "30s", "1h30m". At most a
// year. "0" is zero.
Result<std::chrono::milliseconds> parse_duration(std::string_view text);
std::string format_duration(std::chrono::milliseconds duration);

}  // namespace snug
