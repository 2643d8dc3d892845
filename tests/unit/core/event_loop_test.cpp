#include "vmm/core/event_loop.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <array>
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

TEST_F(EventLoopTest, RegularFilesCannotBeWatched) {
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  EXPECT_FALSE(loop_->watch(file.get(), EPOLLIN, [](uint32_t) {}));
}

}  // namespace
}  // namespace snug
