// Log lines on stderr: "snug: warning: ...". Any thread. Never blocks: when stderr stalls, lines are dropped
// and counted. Library code logs guest misbehaviour only, through a RateLimit; host failures are Results.
#pragma once

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "vmm/base/result.h"

namespace snug {

enum class LogLevel { kTrace, kDebug, kInfo, kWarn, kError, kOff };

// "trace" "debug" "info" "warn" "error" "off".
std::string_view log_level_name(LogLevel level);

// Sets the sink up; without a file, lines go to stderr. Call once, early.
Result<void> log_open(LogLevel level, const std::string& file_path = {});
// Where stderr gets the lines, this file gets them from now on: for a process that leaves its terminal.
void log_leave_stderr(int fd);
// The descriptor that lines go to, for a process that closes all others; -1 before log_open().
int log_descriptor();
bool log_enabled(LogLevel level);
void log_line(LogLevel level, std::string_view text);
// Lines lost because the consumer stalled.
uint64_t log_dropped();

template <class... Args>
void log_at(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(level)) log_line(level, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  log_at(LogLevel::kDebug, format, std::forward<Args>(args)...);
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_at(LogLevel::kInfo, format, std::forward<Args>(args)...);
}
template <class... Args>
void log_warn(fmt::format_string<Args...> format, Args&&... args) {
  log_at(LogLevel::kWarn, format, std::forward<Args>(args)...);
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  log_at(LogLevel::kError, format, std::forward<Args>(args)...);
}

// Lets a few lines through, then one a second with the number held back: a guest cannot flood the log.
class RateLimit {
 public:
  explicit RateLimit(uint32_t burst = 3) : burst_(burst) {}
  // Whether a line may be written now; `suppressed` gets the number of lines held back since the last.
  bool allow(uint64_t& suppressed);

  template <class... Args>
  void warn(fmt::format_string<Args...> format, Args&&... args) {
    uint64_t suppressed = 0;
    if (!log_enabled(LogLevel::kWarn) || !allow(suppressed)) return;
    auto text = fmt::format(format, std::forward<Args>(args)...);
    if (suppressed > 0) text += fmt::format(" ({} more like this held back)", suppressed);
    log_line(LogLevel::kWarn, text);
  }

 private:
  uint32_t burst_;
  std::atomic<uint64_t> seen_ = 0;
  std::atomic<uint64_t> suppressed_ = 0;
  std::atomic<int64_t> last_ns_ = 0;
};

}  // namespace snug
