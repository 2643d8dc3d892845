// Health checks, with the real agent at the other end of a socket pair.
#include "vmm/run/health_check.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include "tests/unit/agent/fixture.h"

namespace snug::test {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using Word = HealthState::Word;

class HealthTest : public AgentTest {
 protected:
  void make(const std::string& line, HealthPlan plan = {}) {
    plan.command = shell_request(line);
    if (plan.interval == 30s) plan.interval = 10ms;
    check_ = std::move(*HealthCheck::create(
        *loop_, std::move(plan),
        [this](HealthCheck::Connected connected) {
          ++asked_;
          loop_->post([this, connected = std::move(connected)] {
            if (reachable_) return connected(connect_agent(), 0);
            connected({}, ECONNREFUSED);
          });
        },
        [this] { return runs_; }));
    check_->begin();
  }
  // Until it is so, or for a long while.
  void turn_until(const std::function<bool()>& so) {
    const auto until = std::chrono::steady_clock::now() + 60s;
    auto timer = loop_->timer([&] { loop_->stop(); });
    while (!so() && std::chrono::steady_clock::now() < until) {
      timer->arm(5ms);
      ASSERT_TRUE(loop_->run());
    }
    EXPECT_TRUE(so());
  }
  void turn_until(Word word) {
    turn_until([&] { return check_->state().word == word; });
  }

  std::unique_ptr<HealthCheck> check_;
  int asked_ = 0;
  bool reachable_ = true;
  bool runs_ = true;
};

TEST_F(HealthTest, WellThenNotThenWell) {
  const std::string flag = testing::TempDir() + "/snug-health-" + std::to_string(::getpid());
  make("echo looked; test ! -e " + flag);
  EXPECT_STREQ(health_word(check_->state().word), "starting");
  turn_until(Word::kHealthy);
  EXPECT_EQ(check_->state().last_status, 0);
  EXPECT_EQ(check_->state().last_output, "looked\n");
  ASSERT_EQ(::close(::creat(flag.c_str(), 0600)), 0);
  turn_until(Word::kUnhealthy);
  EXPECT_GE(check_->state().failures, 3U);
  EXPECT_EQ(check_->state().last_status, 1);
  ::unlink(flag.c_str());
  turn_until(Word::kHealthy);
  EXPECT_EQ(check_->state().failures, 0U);
}

TEST_F(HealthTest, FailuresOfTheStartDoNotCount) {
  HealthPlan plan;
  plan.start_period = 1h;
  plan.retries = 1;
  make("exit 7", plan);
  turn_until([&] { return asked_ > 3; });
  EXPECT_EQ(check_->state().word, Word::kStarting);
  EXPECT_EQ(check_->state().failures, 0U);
  EXPECT_EQ(check_->state().last_status, 7);
}

TEST_F(HealthTest, OneThatTakesTooLongHasFailed) {
  HealthPlan plan;
  plan.timeout = 50ms;
  plan.retries = 2;
  make("exec sleep 1000", plan);
  turn_until(Word::kUnhealthy);
  EXPECT_FALSE(check_->state().last_status);
  EXPECT_THAT(check_->state().last_output, HasSubstr("within 50 ms"));
}

TEST_F(HealthTest, AGuestThatCannotBeAskedIsNotWell) {
  reachable_ = false;
  make("true");
  turn_until(Word::kUnhealthy);
  EXPECT_THAT(check_->state().last_output, HasSubstr("reach the guest's agent"));
  reachable_ = true;
  turn_until(Word::kHealthy);
}

TEST_F(HealthTest, OneThatIsPausedIsNotAsked) {
  runs_ = false;
  make("true");
  auto timer = loop_->timer([&] { loop_->stop(); });
  timer->arm(100ms);
  ASSERT_TRUE(loop_->run());
  EXPECT_EQ(asked_, 0);
  runs_ = true;
  turn_until(Word::kHealthy);
}

TEST_F(HealthTest, OutputIsBounded) {
  make("head -c 100000 /dev/zero | tr '\\0' x; echo end; exit 1");
  turn_until([&] { return check_->state().last_status == 1; });
  EXPECT_EQ(check_->state().last_output.size(), HealthCheck::kKept);
  EXPECT_TRUE(check_->state().last_output.ends_with("xend\n"));
}

TEST_F(HealthTest, TheNextBootBeginsAnew) {
  make("true");
  turn_until(Word::kHealthy);
  check_->end();
  check_->begin();
  EXPECT_EQ(check_->state().word, Word::kStarting);
  turn_until(Word::kHealthy);
}

}  // namespace
}  // namespace snug::test
