#include "vmm/core/event_loop.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <thread>

namespace snug {
namespace {

using namespace std::chrono_literals;

class EventLoopTest : public testing::Test {
 protected:
  void SetUp() override {
    auto created = EventLoop::create();
    ASSERT_TRUE(created);
    loop_ = std::move(*created);
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe2(ends.data(), O_NONBLOCK | O_CLOEXEC), 0);
    read_end_ = UniqueFd(ends[0]);
    write_end_ = UniqueFd(ends[1]);
  }
  std::unique_ptr<EventLoop> loop_;
  UniqueFd read_end_, write_end_;
};

TEST_F(EventLoopTest, TasksFromManyThreadsAllRunInTheOrderOfEach) {
  std::vector<int> last(4, -1);
  int done = 0;
  bool ordered = true;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 1000; ++i)
        loop_->post([&, t, i] {
          ordered = ordered && last[static_cast<size_t>(t)] == i - 1;
          last[static_cast<size_t>(t)] = i;
          if (++done == 4000) loop_->stop();
        });
    });
  ASSERT_TRUE(loop_->run());
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(done, 4000);
  EXPECT_TRUE(ordered);
}

TEST_F(EventLoopTest, AWatchMayEndItselfInItsCallback) {
  EventLoop::Watch watch;
  int calls = 0;
  auto made = loop_->watch(read_end_.get(), EPOLLIN, [&](uint32_t) {
    ++calls;
    watch.reset();
    loop_->post([&] { loop_->stop(); });
  });
  ASSERT_TRUE(made);
  watch = std::move(*made);
  ASSERT_EQ(::write(write_end_.get(), "x", 1), 1);
  ASSERT_TRUE(loop_->run());
  EXPECT_EQ(calls, 1);
  EXPECT_FALSE(watch);
}

TEST_F(EventLoopTest, TimersFireOnceAndCanBeDisarmed) {
  int fired = 0;
  auto disarmed = loop_->timer([&] { ADD_FAILURE() << "a disarmed timer fired"; });
  auto first = loop_->timer([&] { ++fired; });
  auto last = loop_->timer([&] { loop_->stop(); });
  ASSERT_TRUE(disarmed && first && last);
  disarmed->arm(1ms);
  disarmed->disarm();
  first->arm(0ms);
  last->arm(30ms);
  ASSERT_TRUE(loop_->run());
  EXPECT_EQ(fired, 1);
}

// What comes while it looks is found without an event, and what comes behind that brings one: nothing is
// left.
TEST_F(EventLoopTest, PollingFindsWorkAndEndsByAskingForEvents) {
  constexpr int kPieces = 2000;
  std::atomic<int> offered = 0;
  std::atomic<bool> wants_events = true;
  int taken = 0, by_event = 0;
  const auto take = [&] {
    const bool some = taken < offered;
    taken = offered;
    if (taken == kPieces) loop_->stop();
    return some;
  };
  loop_->poll_with({.look =
                        [&] {
                          wants_events = false;
                          return take();
                        },
                    .rest =
                        [&] {
                          wants_events = true;
                          return take();
                        }});
  auto watch = loop_->watch(read_end_.get(), EPOLLIN, [&](uint32_t) {
    std::array<char, 64> bytes{};
    while (::read(read_end_.get(), bytes.data(), bytes.size()) > 0) {
    }
    ++by_event;
    take();
  });
  ASSERT_TRUE(watch);
  std::thread other([&] {
    for (int i = 1; i <= kPieces; ++i) {
      offered = i;
      if (wants_events) (void)!::write(write_end_.get(), "x", 1);
      if (i % 100 == 0) std::this_thread::sleep_for(1ms);
    }
  });
  ASSERT_TRUE(loop_->run());
  other.join();
  EXPECT_EQ(taken, kPieces);
}

// What is looked at may go while the loop runs, as a device does at the end of its machine.
TEST_F(EventLoopTest, PollingCanBeEnded) {
  bool there = true;
  const auto look = [&] {
    EXPECT_TRUE(there);
    return false;
  };
  loop_->poll_with({.look = look, .rest = look});
  loop_->post([&] {
    loop_->poll_with({});
    there = false;
    loop_->post([&] { loop_->stop(); });
  });
  ASSERT_TRUE(loop_->run());
}

TEST_F(EventLoopTest, PollingThatFindsNothingIsGivenUp) {
  int looks = 0;
  loop_->poll_with({.look =
                        [&] {
                          ++looks;
                          return false;
                        },
                    .rest = [] { return false; }});
  constexpr int kEvents = 300;
  int events = 0, times = 0, before = 0;
  Result<EventLoop::Timer> timer;
  timer = loop_->timer([&] {
    times += looks != before ? 1 : 0;
    before = looks;
    if (++events == kEvents) return loop_->stop();
    timer->arm(500us);
  });
  ASSERT_TRUE(timer);
  timer->arm(500us);
  ASSERT_TRUE(loop_->run());
  // Once more after 1, 3, 7, ... events.
  EXPECT_GT(times, 0);
  EXPECT_LT(times, 20);
}

TEST_F(EventLoopTest, RegularFilesCannotBeWatched) {
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  EXPECT_FALSE(loop_->watch(file.get(), EPOLLIN, [](uint32_t) {}));
}

}  // namespace
}  // namespace snug
