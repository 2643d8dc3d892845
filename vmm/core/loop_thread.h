// An event loop with a thread of its own, for a device that does not take turns with the others.
//
// Owner: whoever owns what hangs on the loop; that goes first, or is let go by call().
// Thread: everything here on the owner's; what call() and the loop run, on the new one.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "vmm/base/result.h"
#include "vmm/core/event_loop.h"

namespace snug {

class LoopThread {
 public:
  // `name` is shown by ps and the like, as far as 15 bytes go.
  // `begins`: what the thread does first; may be empty.
  static Result<std::unique_ptr<LoopThread>> create(std::string name, std::function<void()> begins = {});
  ~LoopThread() { stop(); }
  LoopThread(const LoopThread&) = delete;
  LoopThread& operator=(const LoopThread&) = delete;

  // Watches and timers: before start(), in call() and in callbacks of the loop.
  EventLoop& loop() { return *loop_; }
  // Errors: the host has no thread left.
  Result<void> start();
  // Runs `task` on the thread and returns when it is done; on the caller's own while there is no other. Not
  // with a lock held that a callback of the loop may want.
  void call(const std::function<void()>& task);
  // Lets the callbacks under way end, and joins. Idempotent.
  void stop();

 private:
  LoopThread(std::string name, std::function<void()> begins, std::unique_ptr<EventLoop> loop)
      : name_(std::move(name)), begins_(std::move(begins)), loop_(std::move(loop)) {}

  std::string name_;
  std::function<void()> begins_;
  std::unique_ptr<EventLoop> loop_;
  std::thread thread_;
};

}  // namespace snug
