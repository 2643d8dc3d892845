// The one event loop (epoll) that does everything but run vCPUs.
//
// Thread: run() and every callback on the loop's thread; watch() and timers from that thread or before run();
// post() and stop() from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/synced.h"
#include "vmm/base/unique_fd.h"

struct epoll_event;

namespace snug {

class EventLoop {
 public:
  using Callback = std::function<void(uint32_t epoll_events)>;

  // Ends the watch when destroyed. Destroy it before the loop and before closing the descriptor.
  class Watch {
   public:
    Watch() = default;
    Watch(Watch&& other) noexcept;
    Watch& operator=(Watch&& other) noexcept;
    ~Watch() { reset(); }
    void reset();
    // Changes what is waited for (EPOLLIN, EPOLLOUT; 0 waits for nothing).
    void set_events(uint32_t epoll_events);
    explicit operator bool() const { return loop_ != nullptr; }

   private:
    friend EventLoop;
    Watch(EventLoop* loop, int fd, uint64_t id) : loop_(loop), fd_(fd), id_(id) {}
    EventLoop* loop_ = nullptr;
    int fd_ = -1;
    uint64_t id_ = 0;
  };

  // A one-shot timer.
  class Timer {
   public:
    // Calls back once after `delay`; arming again replaces the old deadline. Zero fires at once.
    void arm(std::chrono::nanoseconds delay);
    void disarm();

   private:
    friend EventLoop;
    UniqueFd fd_;  // closed after the watch has ended
    Watch watch_;
  };

  static Result<std::unique_ptr<EventLoop>> create();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Errors: EPERM for descriptors that cannot be polled (regular files).
  Result<Watch> watch(int fd, uint32_t epoll_events, Callback callback);
  Result<Timer> timer(std::function<void()> callback);

  // Before it waits, and so after something has happened, the loop looks for work by itself for a while: what
  // comes soon costs no wake-up. Only while that is worth it, so a quiet loop looks at nothing.
  struct Polling {
    std::function<bool()> look;  // does what there is; false: nothing
    std::function<bool()> rest;  // the end of looking: as look() for the last time
  };
  // Before run(), or in a callback; with nothing to look with it ends. For a loop whose thread has nothing
  // else to do.
  void poll_with(Polling polling) { polling_ = std::move(polling); }

  // Runs `task` on the loop's thread, soon. Never blocks.
  void post(std::function<void()> task);
  // Runs until stop().
  Result<void> run();
  // Makes run() return after the callbacks under way.
  void stop();

 private:
  EventLoop() = default;
  void run_posted();
  void wake();
  int wait(std::span<epoll_event> events);
  int look_around(std::span<epoll_event> events);

  struct Watcher {
    Callback callback;
  };

  UniqueFd epoll_;
  UniqueFd wake_fd_;
  uint64_t next_id_ = 1;  // 0 is the wake-up descriptor
  // Held by pointer: a callback may end its own watch while it runs.
  std::unordered_map<uint64_t, std::shared_ptr<Watcher>> watchers_;
  Synced<std::vector<std::function<void()>>> posted_;
  bool stopped_ = false;
  Polling polling_;
  unsigned passed_over_ = 0;  // times that it still does not look, since it did in vain
  unsigned patience_ = 0;     // how many after the next time in vain
};

}  // namespace snug
