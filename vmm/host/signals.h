// Signals as events of the loop. Thread: the loop's; create before any other thread starts, so that all of
// them inherit the blocked mask.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/event_loop.h"

namespace snug {

// Tells the signals that want a process to end apart: timeout(1) signals the process and then its group, and
// that is one wish, not two.
class EndingWish {
 public:
  static constexpr std::chrono::milliseconds kSame{250};
  // Whether a signal that comes now belongs to the one before.
  bool is_the_same();

 private:
  std::optional<std::chrono::steady_clock::time_point> last_;
};

class SignalWatch {
 public:
  // Those that mean a run: its ends, stops and continuations; with `commands` those for a command too.
  static std::vector<int> of_a_run(bool commands);
  // Nobody hears of them from now on before somebody watches them. SIGPIPE is ignored, as create() does.
  static void block(const std::vector<int>& signals);
  // Blocks the signals for this thread and those it starts, and calls back with each one's number. SIGPIPE is
  // ignored from now on: writes report EPIPE.
  static Result<SignalWatch> create(EventLoop& loop, const std::vector<int>& signals,
                                    std::function<void(int)> callback);

 private:
  UniqueFd fd_;
  EventLoop::Watch watch_;
};

}  // namespace snug
