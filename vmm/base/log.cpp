#include "vmm/base/log.h"

#include <fcntl.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <memory>
#include <mutex>

#include "vmm/base/unique_fd.h"

namespace snug {
namespace {

std::atomic<uint64_t> dropped_lines = 0;
// The sink's descriptor, where it leads to stderr.
std::atomic<int> stderr_sink = -1;
int sink_descriptor = -1;

// Writes whole lines to a non-blocking descriptor; what does not fit at once is dropped.
class NonBlockingSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit NonBlockingSink(UniqueFd fd) : fd_(std::move(fd)) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    const auto text = fmt::format("snug: {}{}\n", prefix(message.level),
                                  std::string_view(message.payload.data(), message.payload.size()));
    if (::write(fd_.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) ++dropped_lines;
  }
  void flush_() override {}

 private:
  static const char* prefix(spdlog::level::level_enum level) {
    switch (level) {
      case spdlog::level::err:
        return "error: ";
      case spdlog::level::warn:
        return "warning: ";
      case spdlog::level::debug:
        return "debug: ";
      case spdlog::level::trace:
        return "trace: ";
      default:
        return "";
    }
  }
  UniqueFd fd_;
};

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kTrace:
      return spdlog::level::trace;
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kOff:
      return spdlog::level::off;
  }
  return spdlog::level::off;
}

}  // namespace

std::string_view log_level_name(LogLevel level) {
  switch (level) {
    case LogLevel::kTrace:
      return "trace";
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarn:
      return "warn";
    case LogLevel::kError:
      return "error";
    case LogLevel::kOff:
      return "off";
  }
  return "off";
}

Result<void> log_open(LogLevel level, const std::string& file_path) {
  UniqueFd fd;
  if (file_path.empty()) {
    if (auto own = reopen_nonblocking(STDERR_FILENO, O_WRONLY)) fd = std::move(*own);
    stderr_sink = fd.get();
  } else {
    fd = SNUG_TRY(open_file(file_path, O_WRONLY | O_CREAT | O_APPEND, 0600));
    stderr_sink = -1;
  }
  sink_descriptor = fd.get();
  auto sink = std::make_shared<NonBlockingSink>(std::move(fd));
  auto logger = std::make_shared<spdlog::logger>("snug", std::move(sink));
  logger->set_level(to_spdlog(level));
  spdlog::set_default_logger(std::move(logger));
  return {};
}

// In place of the old descriptor, at once: other threads may be writing a line.
int log_descriptor() { return sink_descriptor; }

void log_leave_stderr(int fd) {
  if (stderr_sink >= 0) ::dup3(fd, stderr_sink, O_CLOEXEC);
}

bool log_enabled(LogLevel level) { return spdlog::should_log(to_spdlog(level)); }

void log_line(LogLevel level, std::string_view text) {
  spdlog::log(to_spdlog(level), spdlog::string_view_t(text.data(), text.size()));
}

uint64_t log_dropped() { return dropped_lines; }

bool RateLimit::allow(uint64_t& suppressed) {
  constexpr int64_t kSecond = 1'000'000'000;
  const int64_t now = std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
  if (seen_.fetch_add(1) >= burst_) {
    int64_t last = last_ns_.load();
    if (now - last < kSecond || !last_ns_.compare_exchange_strong(last, now)) {
      ++suppressed_;
      return false;
    }
  } else {
    last_ns_ = now;
  }
  suppressed = suppressed_.exchange(0);
  return true;
}

}  // namespace snug
