#include "vmm/run/run_limits.h"

namespace snug {

Result<RunLimits> RunLimits::create(EventLoop& loop, Events events) {
  RunLimits limits;
  limits.run_ = SNUG_TRY(loop.timer(std::move(events.run_over)));
  limits.boot_ = SNUG_TRY(loop.timer(std::move(events.boot_over)));
  limits.grace_ = SNUG_TRY(loop.timer(std::move(events.grace_over)));
  limits.mounts_ = SNUG_TRY(loop.timer(std::move(events.mounts_over)));
  return limits;
}

void RunLimits::set(EventLoop::Timer& timer, const TimeLimit& limit) {
  if (limit) return timer.arm(*limit);
  timer.disarm();
}

}  // namespace snug
