// Handles writes that KVM keeps back (vmm/kvm/coalesced_writes.h) when no exit comes to do it: those of the
// serial port's data, which a person waits for. Every few milliseconds while the guest prints; ever more
// seldom, down to once a second, when nothing comes. A guest that looks again and again, and so has an exit
// each time, wakes nobody: the timer waits until it has stopped.
//
// Thread: expect_writes() from any; the rest on the event loop's.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>

#include "vmm/base/result.h"
#include "vmm/core/event_loop.h"

namespace snug {

class DrainTimer {
 public:
  static constexpr std::chrono::milliseconds kSoon{2};
  static constexpr std::chrono::milliseconds kSeldom{1000};

  // `drain` handles what has been kept back, and returns how many writes that were.
  static Result<std::unique_ptr<DrainTimer>> create(EventLoop& loop, std::function<size_t()> drain);

  // The guest may write any moment now, and what it wrote before has been handled. With locks held: sets a
  // timer at most.
  void expect_writes();

 private:
  using Clock = std::chrono::steady_clock;

  explicit DrainTimer(std::function<size_t()> drain) : drain_(std::move(drain)) {}
  void fired();

  std::function<size_t()> drain_;
  std::mutex mutex_;
  std::chrono::milliseconds pause_ = kSoon;
  Clock::time_point due_;  // when it fires
  EventLoop::Timer timer_;
};

}  // namespace snug
