// The time limits of a run: of all of it, of a boot, and of a guest that was asked to end.
//
// Thread: the loop's.
#pragma once

#include <functional>

#include "vmm/base/result.h"
#include "vmm/core/event_loop.h"
#include "vmm/spec/spec.h"

namespace snug {

class RunLimits {
 public:
  // What to do when one is over.
  struct Events {
    std::function<void()> run_over;
    std::function<void()> boot_over;
    std::function<void()> grace_over;
    std::function<void()> mounts_over;
  };
  static Result<RunLimits> create(EventLoop& loop, Events events);

  // `limit`: none is no limit, and ends the one before.
  void run_begins(const TimeLimit& limit) { set(run_, limit); }
  void boot_begins(const TimeLimit& limit) { set(boot_, limit); }
  // The guest is in user space.
  void boot_is_over() { boot_.disarm(); }
  // Shares are to be mounted by the guest's agent.
  void mounts_begin(const TimeLimit& limit) { set(mounts_, limit); }
  void asked_to_end(const TimeLimit& grace) { set(grace_, grace); }

 private:
  static void set(EventLoop::Timer& timer, const TimeLimit& limit);

  EventLoop::Timer run_;
  EventLoop::Timer boot_;
  EventLoop::Timer grace_;
  EventLoop::Timer mounts_;
};

}  // namespace snug
