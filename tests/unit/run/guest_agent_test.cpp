#include "vmm/run/guest_agent.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
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
  void make(std::vector<protocol::MountRequest> mounts, std::vector<protocol::AddressChange> addresses = {},
            std::string words = {}, bool hands_over = false) {
    agent_ = std::make_unique<GuestAgent>(
        *loop_, *hub_,
        GuestAgent::Wishes{
            std::move(mounts), {{kAddress}, std::move(words)}, std::move(addresses), hands_over},
        GuestAgent::Events{.called = [this] { ++calls_; },
                           .share_failed = [this](const std::string& why) { failed_.push_back(why); },
                           .ready = [this] { ++ready_; },
                           .untouched =
                               [this](bool waits, std::function<void()> go_on) {
                                 untouched_.push_back(waits);
                                 held_ = std::move(go_on);
                                 if (!holds_) held_();
                               },
                           .lost =
                               [this](const std::string& why, bool own) {
                                 failed_.push_back(why);
                                 own_ = own;
                                 return true;
                               }});
  }
  // The guest has the port that tells of its agent open, for a moment.
  void call(uint32_t port = protocol::kCallPort) {
    const auto stream = hub_->open(port);
    ASSERT_TRUE(stream);
    turn();
  }
  // A guest whose agent answers with `answer`, whatever it is asked for; what came is kept.
  void answer_with(std::string answer) {
    hub_->attach([this, answer = std::move(answer)](uint32_t port, UniqueFd stream, VsockDone done) {
      port_ = port;
      ASSERT_EQ(::send(stream.get(), answer.data(), answer.size(), MSG_NOSIGNAL),
                static_cast<ssize_t>(answer.size()));
      guest_ = std::move(stream);
      done({});
    });
  }
  static std::string greeting(uint16_t version) {
    std::string text;
    protocol::put_hello(text, {version, version});
    return text;
  }
  static std::string with_done(std::string text, int count) {
    while (count-- > 0) put_frame(text, protocol::FrameType::kDone);
    return text;
  }
  std::vector<protocol::FrameType> asked() {
    std::array<char, 4096> buffer;
    const ssize_t count = ::recv(guest_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    protocol::FrameReader reader;
    if (count > 0) reader.feed({buffer.data(), static_cast<size_t>(count)});
    std::vector<protocol::FrameType> types;
    while (const auto frame = reader.next()) {
      types.push_back(frame->type);
      if (frame->type == protocol::FrameType::kBegin) begun_ = protocol::decode_begin(frame->payload);
    }
    return types;
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
  static constexpr protocol::Begin::HardwareAddress kAddress{2, 0, 0, 0, 0, 7};
  int calls_ = 0;
  int ready_ = 0;
  std::vector<bool> untouched_;
  bool holds_ = false;
  std::function<void()> held_;
  UniqueFd guest_;
  uint32_t port_ = 0;
  std::optional<protocol::Begin> begun_;
  std::vector<std::string> failed_;
  bool own_ = false;  // the last one of them
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

TEST_F(GuestAgentTest, WhatCouldBeSavedIsAskedForNothingUntilItWas) {
  holds_ = true;
  agent_->guest_boots();
  call();
  EXPECT_THAT(untouched_, testing::ElementsAre(false));
  EXPECT_EQ(ready_, 0);
  held_();
  EXPECT_EQ(ready_, 1);
  // What comes late is for no other boot.
  call();
  agent_->guest_boots();
  held_();
  EXPECT_EQ(ready_, 1);
}

TEST_F(GuestAgentTest, AGuestThatWaitsIsToldToBegin) {
  agent_->guest_boots();
  answer_with(with_done(greeting(protocol::kVersion), 1));
  call(protocol::kWaitingPort);
  EXPECT_THAT(untouched_, testing::ElementsAre(true, false));
  EXPECT_THAT(asked(), testing::ElementsAre(protocol::FrameType::kHello, protocol::FrameType::kBegin));
  EXPECT_EQ(port_, protocol::kWaitingPort);
  EXPECT_THAT(begun_->addresses, testing::ElementsAre(kAddress));
  EXPECT_EQ(ready_, 1);
}

TEST_F(GuestAgentTest, OneThatHandsOverIsReadyWhenTheAgentCalls) {
  make({}, {}, {}, true);
  agent_->guest_boots();
  answer_with(with_done(greeting(protocol::kVersion), 1));
  call(protocol::kWaitingPort);
  EXPECT_TRUE(agent_->has_begun());
  EXPECT_FALSE(agent_->has_called());
  EXPECT_EQ(ready_, 0);
  call();
  EXPECT_EQ(ready_, 1);
  // Where it begins with another's state.
  agent_->guest_boots();
  EXPECT_FALSE(agent_->has_begun());
  answer_with(with_done(greeting(protocol::kVersion), 2));
  agent_->guest_goes_on("name", true);
  turn();
  EXPECT_EQ(port_, protocol::kWaitingPort);
  EXPECT_TRUE(agent_->has_begun());
  EXPECT_EQ(ready_, 1);
  call();
  EXPECT_EQ(ready_, 2);
  EXPECT_THAT(untouched_, testing::ElementsAre(true, false));
  EXPECT_THAT(failed_, testing::IsEmpty());
}

TEST_F(GuestAgentTest, WordsAreForAnAgentThatTakesThem) {
  make({}, {}, "snug.volume=/data");
  agent_->guest_boots();
  answer_with(with_done(greeting(protocol::kWordsVersion), 1));
  call(protocol::kWaitingPort);
  EXPECT_THAT(asked(), testing::ElementsAre(protocol::FrameType::kHello, protocol::FrameType::kBegin));
  EXPECT_EQ(begun_->words, "snug.volume=/data");
  EXPECT_EQ(ready_, 1);
  agent_->guest_boots();
  answer_with(with_done(greeting(protocol::kKeepVersion), 1));
  call(protocol::kWaitingPort);
  EXPECT_EQ(ready_, 1);
  EXPECT_EQ(failed_.size(), 1) << "it has begun without them";
}

TEST_F(GuestAgentTest, AGuestThatDoesNotBeginIsSaid) {
  agent_->guest_boots();
  std::string answer = greeting(protocol::kVersion);
  protocol::put_error(answer, protocol::ErrorCode::kFailed, "eth0 takes no other address");
  answer_with(answer);
  call(protocol::kWaitingPort);
  EXPECT_THAT(failed_, testing::ElementsAre(testing::HasSubstr("eth0 takes no other address")));
  EXPECT_EQ(ready_, 0);
}

TEST_F(GuestAgentTest, WhatAGuestIsRefusedThatHasGoneOnIsItsOwn) {
  std::string refusal = greeting(protocol::kVersion);
  protocol::put_error(refusal, protocol::ErrorCode::kFailed, "the root cannot be entered");
  std::string later = with_done(greeting(protocol::kVersion), 1);
  protocol::put_error(later, protocol::ErrorCode::kFailed, "the root cannot be entered");
  const auto lost = [&](const std::string& answer, bool waits) {
    failed_.clear();
    agent_->guest_boots();
    answer_with(answer);
    agent_->guest_goes_on("name", waits);
    turn();
    EXPECT_THAT(failed_, testing::ElementsAre(testing::HasSubstr("cannot be entered")));
    return own_;
  };
  EXPECT_TRUE(lost(later, true));
  EXPECT_FALSE(lost(refusal, true));
  EXPECT_FALSE(lost(refusal, false));
}

TEST_F(GuestAgentTest, OneThatGoesOnMountsOnTheWayToItsCommand) {
  make({{.tag = "a", .target = "/a", .file = {}, .readonly = false}});
  std::optional<ExecBefore> before;
  agent_->when_it_goes_on([&](UniqueFd, ExecBefore asked) {
    before = std::move(asked);
    return true;
  });
  agent_->guest_boots();
  answer_with(greeting(protocol::kVersion));
  agent_->guest_goes_on("name", false);
  turn();
  ASSERT_TRUE(before);
  EXPECT_EQ(before->answers, 2U);
  protocol::FrameReader reader;
  reader.feed(before->frames);
  EXPECT_EQ(reader.next()->type, protocol::FrameType::kGoOn);
  EXPECT_EQ(reader.next()->type, protocol::FrameType::kMount);
  EXPECT_EQ(ready_, 0);
  before->done({});
  EXPECT_EQ(ready_, 1);
  EXPECT_EQ(agent_->shares().outcome("a"), "");
  EXPECT_THAT(failed_, testing::IsEmpty());
}

TEST_F(GuestAgentTest, WhatIsRefusedOnTheWayIsAskedForAlone) {
  make({{.tag = "a", .target = "/a", .file = {}, .readonly = false}});
  std::optional<ExecBefore> before;
  agent_->when_it_goes_on([&](UniqueFd, ExecBefore asked) {
    before = std::move(asked);
    return true;
  });
  agent_->guest_boots();
  answer_with(with_done(greeting(protocol::kVersion), 1));
  agent_->guest_goes_on("name", false);
  turn();
  ASSERT_TRUE(before);
  before->done(fail("the guest's agent: there is no such device"));
  turn();
  // It goes on after all, and then mounts.
  EXPECT_THAT(failed_, testing::IsEmpty());
  EXPECT_THAT(asked(), testing::ElementsAre(protocol::FrameType::kHello, protocol::FrameType::kMount));
  EXPECT_EQ(ready_, 1);
}

TEST_F(GuestAgentTest, OneThatIsAnotherHasItsAddressesBeforeItIsReady) {
  make({}, {{kAddress, {2, 0, 0, 0, 0, 8}}});
  bool ahead = false;
  agent_->when_it_goes_on([&](UniqueFd, ExecBefore) { return ahead = true; });
  agent_->guest_boots();
  answer_with(with_done(greeting(protocol::kVersion), 1));
  agent_->guest_goes_on("name", false);
  turn();
  EXPECT_FALSE(ahead) << "a command would have seen the others";
  EXPECT_THAT(asked(), testing::ElementsAre(protocol::FrameType::kHello, protocol::FrameType::kReaddress));
  EXPECT_EQ(ready_, 1);
  EXPECT_EQ(calls_, 1);
}

TEST_F(GuestAgentTest, AnAgentThatCannotChangeAddressesIsNoFailure) {
  make({}, {{kAddress, {2, 0, 0, 0, 0, 8}}});
  agent_->guest_boots();
  answer_with(with_done(greeting(protocol::kBeginVersion), 1));
  agent_->guest_goes_on("name", false);
  turn();
  EXPECT_EQ(ready_, 1);
  EXPECT_THAT(failed_, testing::IsEmpty());
}

TEST_F(GuestAgentTest, OneThatWaitedGoesOnAndBeginsAtOnce) {
  agent_->guest_boots();
  answer_with(with_done(greeting(protocol::kVersion), 2));
  agent_->guest_goes_on("name", true);
  turn();
  EXPECT_THAT(asked(), testing::ElementsAre(protocol::FrameType::kHello, protocol::FrameType::kGoOn,
                                            protocol::FrameType::kBegin));
  EXPECT_EQ(port_, protocol::kWaitingPort);
  EXPECT_THAT(untouched_, testing::IsEmpty());
  EXPECT_EQ(ready_, 1);
}

TEST_F(GuestAgentTest, WhatComesOfABootIsForNoOther) {
  agent_->guest_boots();
  VsockDone held;
  hub_->attach([&](uint32_t, UniqueFd, VsockDone done) { held = std::move(done); });
  agent_->guest_goes_on("name", false);
  // Its machine goes, and with it the connection.
  agent_->guest_boots();
  held({.error = ECONNRESET});
  turn();
  EXPECT_THAT(failed_, testing::IsEmpty());
}

TEST_F(GuestAgentTest, OneThatIsSlowToGoOnIsReachedForAgain) {
  agent_->guest_boots();
  VsockDone held;
  hub_->attach([&](uint32_t, UniqueFd, VsockDone done) { held = std::move(done); });
  agent_->guest_goes_on("name", false);
  turn();
  // The host has much else to do.
  answer_with(with_done(greeting(protocol::kVersion), 1));
  held({.error = ETIMEDOUT});
  turn();
  EXPECT_THAT(failed_, testing::IsEmpty());
  EXPECT_EQ(ready_, 1);
}

TEST_F(GuestAgentTest, OneThatWaitsToBeginIsReachedForAgain) {
  agent_->guest_boots();
  VsockDone held;
  hub_->attach([&](uint32_t, UniqueFd, VsockDone done) { held = std::move(done); });
  call(protocol::kWaitingPort);
  turn();
  ASSERT_TRUE(held);
  answer_with(with_done(greeting(protocol::kVersion), 1));
  held({.error = ETIMEDOUT});
  turn();
  EXPECT_THAT(failed_, testing::IsEmpty());
  EXPECT_EQ(ready_, 1);
}

TEST_F(GuestAgentTest, OneThatDoesNotGoOnIsLost) {
  agent_->guest_boots();
  refuse_with(ECONNRESET);
  agent_->guest_goes_on("name", false);
  turn();
  EXPECT_EQ(failed_.size(), 1U);
  answer_with(with_done(greeting(protocol::kVersion), 1) + "nonsense that is no frame at all");
  agent_->guest_goes_on("name", true);
  turn();
  EXPECT_EQ(failed_.size(), 2U);
  EXPECT_EQ(ready_, 0);
}

}  // namespace
}  // namespace snug
