// The last lines of a console, kept for reports, and what they say about a crash. Bounded; no threads.
#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <span>
#include <string>

namespace snug {

class ConsoleTail {
 public:
  void feed(std::span<const std::byte> output);
  // The last line with something in it, escape sequences and control characters removed; "" when none.
  std::string last_line() const;
  // The newest lines, oldest first, at most `count`.
  std::string last_lines(size_t count) const;
  // The line with which Linux reports a panic, when it is among the lines kept. A program in the guest could
  // print it as well: believe it only together with a reset or a crash.
  std::optional<std::string> panic_line() const;

 private:
  static constexpr size_t kMaxLines = 96;
  static constexpr size_t kMaxLineLength = 240;
  void finish_line();

  std::deque<std::string> lines_;
  std::string current_;
};

}  // namespace snug
