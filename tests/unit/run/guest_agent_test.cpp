#include "vmm/run/guest_agent.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

namespace snug {
namespace {

using namespace std::chrono_literals;

// A hub without a socket, and a guest that refuses every stream with an errno of its choice.
class GuestAgentTest : public testing::Test {
 protected:
  void SetUp() override {
    loop_ = std::move(*EventLoop::create());
    hub_ = std::move(*VsockHub::create(*loop_, ""));
    make({});
  }
  void make(std::vector<protocol::MountRequest> mounts) {
    agent_ = std::make_unique<GuestAgent>(
        *loop_, *hub_, std::move(mounts),
        GuestAgent::Events{.called = [this] { ++calls_; },
                           .share_failed = [this](const std::string& why) { failed_.push_back(why); },
                           .ready = [this] { ++ready_; }});
  }
  // The guest has the port that tells of its agent open, for a moment.
  void call() {
    const auto stream = hub_->open(protocol::kCallPort);
    ASSERT_TRUE(stream);
    turn();
  }
  void refuse_with(int error) {
    hub_->attach([error](uint32_t port, UniqueFd, VsockDone done) {
      EXPECT_EQ(port, protocol::kAgentPort);
      done({.error = error});
    });
  }
  // All that has been posted so far, and what that posts.
  void turn() {
    auto timer = loop_->timer([this] { loop_->stop(); });
    timer->arm(20ms);
    ASSERT_TRUE(loop_->run());
  }

  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<VsockHub> hub_;
  std::unique_ptr<GuestAgent> agent_;
  int calls_ = 0;
  int ready_ = 0;
  std::vector<std::string> failed_;
};

TEST_F(GuestAgentTest, IsAwaitedForAsLongAsABootMayTakeThenSilent) {
  agent_->guest_boots();
  EXPECT_STREQ(agent_->state(1h), "awaited");
  EXPECT_STREQ(agent_->state(0s), "silent");
}

TEST_F(GuestAgentTest, HasCalledUntilTheNextBoot) {
  agent_->guest_boots();
  call();
  EXPECT_EQ(calls_, 1);
  EXPECT_EQ(ready_, 1);
  EXPECT_STREQ(agent_->state(0s), "ready");
  agent_->guest_boots();
  EXPECT_STREQ(agent_->state(1h), "awaited");
  call();
  EXPECT_EQ(calls_, 2);
  EXPECT_STREQ(agent_->state(1h), "ready");
}

TEST_F(GuestAgentTest, IsReadyWhenItsSharesHaveBeenTried) {
  make({{.tag = "a", .target = "/a", .file = {}, .readonly = false}});
  agent_->guest_boots();
  VsockDone held;
  hub_->attach([&](uint32_t, UniqueFd, VsockDone done) { held = std::move(done); });
  call();
  EXPECT_EQ(calls_, 1);
  EXPECT_EQ(ready_, 0);
  EXPECT_STREQ(agent_->state(1h), "awaited");
  held({.error = ECONNRESET});
  turn();
  EXPECT_EQ(ready_, 1);
  EXPECT_THAT(failed_, testing::ElementsAre(testing::StartsWith("mount a on /a: reach the guest's agent: ")));
  EXPECT_STREQ(agent_->state(1h), "ready");
}

TEST_F(GuestAgentTest, APowerOffThatNobodyTakesIsSaid) {
  std::optional<std::string> why;
  refuse_with(ECONNRESET);
  agent_->power_off([&](const std::string& text) { why = text; });
  turn();
  ASSERT_TRUE(why);
  EXPECT_THAT(*why, testing::HasSubstr("reset"));
}

TEST_F(GuestAgentTest, AClockThatCannotBeSetIsNoFailure) {
  agent_->set_clock();  // between two boots
  refuse_with(ECONNRESET);
  agent_->set_clock();
  turn();
}

}  // namespace
}  // namespace snug
