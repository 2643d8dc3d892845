#include "vmm/host/console_tail.h"

#include <algorithm>

namespace snug {
namespace {

// Removes CSI sequences (ESC [ ... final byte) and other control characters.
std::string printable(const std::string& line) {
  std::string text;
  for (size_t i = 0; i < line.size(); ++i) {
    const auto c = static_cast<unsigned char>(line[i]);
    if (c == 0x1b && i + 1 < line.size() && line[i + 1] == '[') {
      i += 2;
      while (i < line.size() && (line[i] < 0x40 || line[i] > 0x7e)) ++i;
    } else if (c >= 0x20 && c != 0x7f) {
      text += line[i];
    }
  }
  const auto end = text.find_last_not_of(' ');
  text.resize(end == std::string::npos ? 0 : end + 1);
  return text;
}

}  // namespace

void ConsoleTail::feed(std::span<const std::byte> output) {
  for (const std::byte byte : output) {
    const char c = std::to_integer<char>(byte);
    if (c == '\n')
      finish_line();
    else if (current_.size() < kMaxLineLength)
      current_ += c;
  }
}

void ConsoleTail::finish_line() {
  auto line = printable(current_);
  current_.clear();
  if (line.empty()) return;
  lines_.push_back(std::move(line));
  if (lines_.size() > kMaxLines) lines_.pop_front();
}

std::string ConsoleTail::last_line() const {
  const auto current = printable(current_);
  if (!current.empty()) return current;
  return lines_.empty() ? std::string() : lines_.back();
}

std::string ConsoleTail::last_lines(size_t count) const {
  std::string text;
  for (size_t i = lines_.size() - std::min(count, lines_.size()); i < lines_.size(); ++i)
    text += lines_[i] + '\n';
  const auto current = printable(current_);
  return current.empty() ? text : text + current + '\n';
}

std::optional<std::string> ConsoleTail::panic_line() const {
  constexpr std::string_view kPanic = "Kernel panic - not syncing";
  for (auto line = lines_.rbegin(); line != lines_.rend(); ++line) {
    const auto at = line->find(kPanic);
    if (at == std::string::npos) continue;
    // Either the whole line or behind printk's time stamp.
    if (at == 0 || line->front() == '[') return line->substr(at);
  }
  return std::nullopt;
}

}  // namespace snug
