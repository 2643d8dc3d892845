#include "boot/cmdline.h"

namespace snug::boot {

Result<void> check_cmdline(std::string_view cmdline, uint32_t max) {
  for (size_t i = 0; i < cmdline.size(); ++i) {
    const auto byte = static_cast<unsigned char>(cmdline[i]);
    if (byte >= 0x20 && byte < 0x7f) continue;
    const char* what = byte == 0      ? "a NUL"
                       : byte == '\n' ? "a newline"
                       : byte == '\t' ? "a tab"
                                      : "not printable ASCII";
    return fail_with_hint(fmt::format("kernel command line: byte {} is {} (0x{:02x})", i + 1, what, byte),
                          "the command line is one line of printable ASCII");
  }
  if (cmdline.size() > max)
    return fail("kernel command line: {} bytes long, this kernel takes at most {}", cmdline.size(), max);
  return {};
}

Result<std::string> join_cmdline(std::span<const std::string_view> parts, uint32_t max) {
  std::string line;
  for (const std::string_view part : parts) {
    if (part.empty()) continue;
    if (!line.empty()) line += ' ';
    line += part;
  }
  SNUG_TRY(check_cmdline(line, max));
  return line;
}

}  // namespace snug::boot
