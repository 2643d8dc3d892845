// Handles writes that KVM keeps back (vmm/kvm/coalesced_writes.h) when no exit comes to do it: those of the
// serial port's data, which a person waits for. Every few milliseconds while the guest prints; ever more
// seldom, down to once a second, when nothing comes.
//
// Thread: expect_writes() from any; the rest on the event loop's.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>

#include "vmm/base/result.h"
#include "vmm/core/event_loop.h"

namespace snug {

class DrainTimer {
 public:
  static constexpr std::chrono::milliseconds kSoon{2};
  static constexpr std::chrono::milliseconds kSeldom{1000};

  // `drain` handles what has been kept back, and returns how many writes that were.
  static Result<std::unique_ptr<DrainTimer>> create(EventLoop& loop, std::function<size_t()> drain);

  // The guest may write any moment now. With locks held: posts at most.
  void expect_writes();

 private:
  DrainTimer(EventLoop& loop, std::function<size_t()> drain) : loop_(loop), drain_(std::move(drain)) {}
  void fired();

  EventLoop& loop_;
  std::function<size_t()> drain_;
  // What was posted and comes after this is gone finds it expired.
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
  std::atomic<bool> soon_ = false;      // it fires after kSoon
  std::atomic<bool> expected_ = false;  // since it fired
  std::chrono::milliseconds pause_ = kSoon;
  EventLoop::Timer timer_;
};

}  // namespace snug
