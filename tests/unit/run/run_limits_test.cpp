#include "vmm/run/run_limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace snug {
namespace {

using namespace std::chrono_literals;

class RunLimitsTest : public testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*EventLoop::create());
    limits_ = std::move(*RunLimits::create(*loop_, {.run_over = [this] { over_ += "run "; },
                                                    .boot_over = [this] { over_ += "boot "; },
                                                    .grace_over = [this] { over_ += "grace "; },
                                                    .mounts_over = [this] { over_ += "mounts "; }}));
  }
  std::string over_after(std::chrono::milliseconds time) {
    auto timer = loop_->timer([this] { loop_->stop(); });
    timer->arm(time);
    EXPECT_TRUE(loop_->run());
    return over_;
  }

  std::unique_ptr<EventLoop> loop_;
  RunLimits limits_;
  std::string over_;
};

TEST_F(RunLimitsTest, EachIsToldOnce) {
  limits_.run_begins(10ms);
  limits_.boot_begins(20ms);
  limits_.asked_to_end(30ms);
  limits_.mounts_begin(40ms);
  EXPECT_EQ(over_after(200ms), "run boot grace mounts ");
}

TEST_F(RunLimitsTest, NoneIsNoLimit) {
  limits_.run_begins({});
  limits_.boot_begins({});
  limits_.asked_to_end({});
  EXPECT_EQ(over_after(50ms), "");
}

TEST_F(RunLimitsTest, ABootThatIsOverIsNotTimed) {
  limits_.boot_begins(50ms);
  limits_.boot_is_over();
  EXPECT_EQ(over_after(150ms), "");
}

TEST_F(RunLimitsTest, TheLastWordCounts) {
  limits_.asked_to_end(20ms);
  limits_.asked_to_end(1h);
  limits_.boot_begins(20ms);
  limits_.boot_begins({});
  EXPECT_EQ(over_after(100ms), "");
}

TEST_F(RunLimitsTest, ZeroIsAtOnce) {
  limits_.asked_to_end(0ms);
  EXPECT_EQ(over_after(100ms), "grace ");
}

}  // namespace
}  // namespace snug
