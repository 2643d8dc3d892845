#include "vmm/machine/drain_timer.h"

#include <algorithm>

namespace snug {

Result<std::unique_ptr<DrainTimer>> DrainTimer::create(EventLoop& loop, std::function<size_t()> drain) {
  std::unique_ptr<DrainTimer> made(new DrainTimer(std::move(drain)));
  made->timer_ = SNUG_TRY(loop.timer([timer = made.get()] { timer->fired(); }));
  return made;
}

void DrainTimer::expect_writes() {
  const std::lock_guard lock(mutex_);
  const Clock::time_point now = Clock::now();
  if (pause_ == kSoon && due_ - now > kSoon / 2) return;
  pause_ = kSoon;
  due_ = now + pause_;
  timer_.arm(pause_);
}

void DrainTimer::fired() {
  const bool some = drain_() > 0;
  const std::lock_guard lock(mutex_);
  const Clock::time_point now = Clock::now();
  // Otherwise it has been set anew meanwhile.
  if (due_ <= now) {
    pause_ = some ? kSoon : std::min(2 * pause_, kSeldom);
    due_ = now + pause_;
  }
  timer_.arm(due_ - now);
}

}  // namespace snug
