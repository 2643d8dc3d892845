#include "vmm/core/event_loop.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <array>
#include <utility>

namespace snug {

EventLoop::Watch::Watch(Watch&& other) noexcept
    : loop_(std::exchange(other.loop_, nullptr)), fd_(other.fd_), id_(other.id_) {}

EventLoop::Watch& EventLoop::Watch::operator=(Watch&& other) noexcept {
  if (this != &other) {
    reset();
    loop_ = std::exchange(other.loop_, nullptr);
    fd_ = other.fd_;
    id_ = other.id_;
  }
  return *this;
}

void EventLoop::Watch::reset() {
  if (loop_ == nullptr) return;
  ::epoll_ctl(loop_->epoll_.get(), EPOLL_CTL_DEL, fd_, nullptr);
  loop_->watchers_.erase(id_);
  loop_ = nullptr;
}

void EventLoop::Watch::set_events(uint32_t epoll_events) {
  if (loop_ == nullptr) return;
  epoll_event event{.events = epoll_events, .data = {.u64 = id_}};
  ::epoll_ctl(loop_->epoll_.get(), EPOLL_CTL_MOD, fd_, &event);
}

void EventLoop::Timer::arm(std::chrono::nanoseconds delay) {
  // A zero it_value would disarm the timer.
  const int64_t ns = std::max<int64_t>(delay.count(), 1);
  const itimerspec spec{.it_interval = {},
                        .it_value = {.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000}};
  ::timerfd_settime(fd_.get(), 0, &spec, nullptr);
}

void EventLoop::Timer::disarm() {
  const itimerspec spec{};
  ::timerfd_settime(fd_.get(), 0, &spec, nullptr);
}

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
  std::unique_ptr<EventLoop> loop(new EventLoop);
  loop->epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  if (!loop->epoll_) return fail_errno(errno, "epoll_create1");
  loop->wake_fd_ = SNUG_TRY(make_eventfd());
  epoll_event event{.events = EPOLLIN, .data = {.u64 = 0}};
  if (::epoll_ctl(loop->epoll_.get(), EPOLL_CTL_ADD, loop->wake_fd_.get(), &event) != 0)
    return fail_errno(errno, "epoll_ctl");
  return loop;
}

Result<EventLoop::Watch> EventLoop::watch(int fd, uint32_t epoll_events, Callback callback) {
  const uint64_t id = next_id_++;
  epoll_event event{.events = epoll_events, .data = {.u64 = id}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return fail_errno(errno, "epoll_ctl");
  watchers_.emplace(id, std::make_shared<Watcher>(Watcher{std::move(callback)}));
  return Watch(this, fd, id);
}

Result<EventLoop::Timer> EventLoop::timer(std::function<void()> callback) {
  Timer timer;
  timer.fd_ = UniqueFd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer.fd_) return fail_errno(errno, "timerfd_create");
  timer.watch_ = SNUG_TRY(
      watch(timer.fd_.get(), EPOLLIN, [fd = timer.fd_.get(), callback = std::move(callback)](uint32_t) {
        uint64_t expirations = 0;
        if (::read(fd, &expirations, sizeof expirations) > 0) callback();
      }));
  return timer;
}

void EventLoop::post(std::function<void()> task) {
  posted_.lock()->push_back(std::move(task));
  wake();
}

void EventLoop::stop() {
  post([this] { stopped_ = true; });
}

void EventLoop::wake() {
  const uint64_t one = 1;
  // A full counter (EAGAIN) wakes the loop all the same.
  [[maybe_unused]] const ssize_t written = ::write(wake_fd_.get(), &one, sizeof one);
}

void EventLoop::run_posted() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t drained = ::read(wake_fd_.get(), &count, sizeof count);
  std::vector<std::function<void()>> tasks;
  std::swap(tasks, *posted_.lock());
  for (auto& task : tasks) task();
}

int EventLoop::wait(std::span<epoll_event> events) {
  int timeout_ms = -1;
  if (polling_.look) {
    if (const int count = look_around(events); count != 0) return count;
    if (polling_.rest()) timeout_ms = 0;
  }
  return ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
}

// As epoll_wait(2) that does not wait.
int EventLoop::look_around(std::span<epoll_event> events) {
  if (passed_over_ > 0) {
    --passed_over_;
    return 0;
  }
  // A guest that has been told of something and answers with the next request takes about as long.
  constexpr std::chrono::microseconds kWindow{30};
  constexpr unsigned kLooks = 16;  // between two system calls
  constexpr unsigned kPatienceMax = 255;
  bool found = false;
  auto end = std::chrono::steady_clock::now() + kWindow;
  for (;;) {
    bool now = false;
    for (unsigned i = 0; i < kLooks; ++i) {
      now = polling_.look() || now;
      __builtin_ia32_pause();
    }
    found = found || now;
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
    if (count != 0) return count;
    const auto time = std::chrono::steady_clock::now();
    if (now) end = time + kWindow;
    if (time > end) break;
  }
  patience_ = found ? 0 : std::min(2 * patience_ + 1, kPatienceMax);
  passed_over_ = patience_;
  return 0;
}

Result<void> EventLoop::run() {
  stopped_ = false;
  std::array<epoll_event, 64> events{};
  while (!stopped_) {
    const int count = wait(events);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "epoll_wait");
    for (int i = 0; i < count && !stopped_; ++i) {
      // Copied: the structure is packed, and nothing may refer to its members.
      const epoll_event event = events[static_cast<size_t>(i)];
      const uint64_t id = event.data.u64;
      if (id == 0) {
        run_posted();
        continue;
      }
      // An earlier callback of this round may have ended the watch.
      const auto found = watchers_.find(id);
      if (found == watchers_.end()) continue;
      const auto watcher = found->second;
      watcher->callback(uint32_t{event.events});
    }
  }
  return {};
}

}  // namespace snug
