#include "vmm/machine/drain_timer.h"

#include <algorithm>

namespace snug {

Result<std::unique_ptr<DrainTimer>> DrainTimer::create(EventLoop& loop, std::function<size_t()> drain) {
  std::unique_ptr<DrainTimer> made(new DrainTimer(loop, std::move(drain)));
  made->timer_ = SNUG_TRY(loop.timer([timer = made.get()] { timer->fired(); }));
  return made;
}

void DrainTimer::expect_writes() {
  // Order: the note before the look at what fired() may be about to set.
  expected_ = true;
  if (soon_.exchange(true)) return;
  loop_.post([this, alive = std::weak_ptr<int>(alive_)] {
    if (alive.expired()) return;
    pause_ = kSoon;
    timer_.arm(pause_);
  });
}

void DrainTimer::fired() {
  const bool expected = expected_.exchange(false);
  const bool some = drain_() > 0;
  pause_ = expected || some ? kSoon : std::min(2 * pause_, kSeldom);
  // A note that comes behind this arms the timer anew.
  soon_ = pause_ == kSoon;
  if (soon_ || !expected_) return timer_.arm(pause_);
  soon_ = true;
  timer_.arm(pause_ = kSoon);
}

}  // namespace snug
