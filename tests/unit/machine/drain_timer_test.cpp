#include "vmm/machine/drain_timer.h"

#include <gtest/gtest.h>

#include <thread>

namespace snug {
namespace {

class DrainTimerTest : public testing::Test {
 protected:
  DrainTimerTest() : loop(std::move(*EventLoop::create())) {
    timer = std::move(*DrainTimer::create(*loop, [this] {
      ++drains;
      const size_t some = there;
      there = 0;
      if (drains >= until) loop->stop();
      return some;
    }));
  }
  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<DrainTimer> timer;
  int drains = 0;
  int until = 1;
  size_t there = 0;
};

TEST_F(DrainTimerTest, DrainsAfterAWriteWasExpected) {
  there = 3;
  std::thread([this] { timer->expect_writes(); }).join();
  ASSERT_TRUE(loop->run());
  EXPECT_EQ(there, 0u);
}

// Nothing that comes late is left: it goes on looking, however seldom.
TEST_F(DrainTimerTest, GoesOnWhenNothingComes) {
  until = 6;
  const auto start = std::chrono::steady_clock::now();
  timer->expect_writes();
  ASSERT_TRUE(loop->run());
  // 2, 2, 4, 8, 16, 32 ms: the first has been expected, the others find nothing.
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(60));
}

TEST_F(DrainTimerTest, ExpectingBringsItBackFromASlowPace) {
  until = 8;  // by then it waits for a quarter of a second
  timer->expect_writes();
  ASSERT_TRUE(loop->run());
  until = 9;
  there = 1;
  timer->expect_writes();
  ASSERT_TRUE(loop->run());
  EXPECT_EQ(there, 0u);
}

TEST_F(DrainTimerTest, MayEndWithANoteOnItsWay) {
  timer->expect_writes();
  timer.reset();
  loop->stop();
  ASSERT_TRUE(loop->run());
  EXPECT_EQ(drains, 0);
}

}  // namespace
}  // namespace snug
