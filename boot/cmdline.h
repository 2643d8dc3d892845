// The kernel command line: put together and checked. Any thread; no state.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "vmm/base/result.h"

namespace snug::boot {

// Printable ASCII only (no NUL, no newline), at most `max` bytes (LoadedKernel::cmdline_max). Errors name the
// position (counted from 1) and the byte, or the length and the limit.
Result<void> check_cmdline(std::string_view cmdline, uint32_t max);

// The parts that are not empty, a space between them; checked.
Result<std::string> join_cmdline(std::span<const std::string_view> parts, uint32_t max);

}  // namespace snug::boot
