// Signals as events of the loop. Thread: the loop's; create before any other thread starts, so that all of
// them inherit the blocked mask.
#pragma once

#include <functional>
#include <initializer_list>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/event_loop.h"

namespace snug {

class SignalWatch {
 public:
  // Blocks the signals for this thread and those it starts, and calls back with each one's number. SIGPIPE is
  // ignored from now on: writes report EPIPE.
  static Result<SignalWatch> create(EventLoop& loop, std::initializer_list<int> signals,
                                    std::function<void(int)> callback);

 private:
  UniqueFd fd_;
  EventLoop::Watch watch_;
};

}  // namespace snug
