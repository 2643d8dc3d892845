#include "vmm/host/escape.h"

#include <cctype>

namespace snug {
namespace {
constexpr std::byte kEscape{0x01};  // Ctrl-A
}

EscapeCommand EscapeFilter::feed(std::span<const std::byte> input, std::vector<std::byte>& out) {
  auto command = EscapeCommand::kNone;
  for (const std::byte byte : input) {
    if (!escaped_) {
      escaped_ = byte == kEscape;
      if (!escaped_) out.push_back(byte);
      continue;
    }
    escaped_ = false;
    if (std::tolower(std::to_integer<unsigned char>(byte)) == quit_) return EscapeCommand::kQuit;
    switch (std::to_integer<char>(byte)) {
      case 'h':
      case '?':
        command = EscapeCommand::kHelp;
        break;
      case 0x01:
        out.push_back(kEscape);
        break;
      default:
        out.push_back(kEscape);
        out.push_back(byte);
    }
  }
  return command;
}

}  // namespace snug
