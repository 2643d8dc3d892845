// A machine's end of the talk with whoever sends it: words, and what is none.
#include "vmm/run/send_talk.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <string>

#include "vmm/core/event_loop.h"

namespace snug {
namespace {

class SendTalkTest : public testing::Test {
 protected:
  void SetUp() override {
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
    other_ = UniqueFd(ends[0]);
    talk_ = std::move(*SendTalk::create(*loop_, UniqueFd(ends[1]),
                                        {.word =
                                             [this](SendWord word) {
                                               heard_ += fmt::format("{} ", static_cast<int>(word));
                                               if (word == SendWord::kStay) loop_->stop();
                                             },
                                         .gone =
                                             [this] {
                                               heard_ += "gone";
                                               // As whoever owns it does.
                                               talk_.reset();
                                               loop_->stop();
                                             }}));
  }
  void say(std::string_view text) {
    ASSERT_EQ(::send(other_.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  // What it has heard, to `stay` or the end.
  std::string heard() {
    heard_.clear();
    EXPECT_TRUE(loop_->run());
    return heard_;
  }

  std::unique_ptr<EventLoop> loop_ = std::move(*EventLoop::create());
  UniqueFd other_;
  std::unique_ptr<SendTalk> talk_;
  std::string heard_;
};

TEST_F(SendTalkTest, EachWordIsAPacket) {
  say("round");
  say("round");
  say("stand still");
  say("stay");
  EXPECT_EQ(heard(), "0 0 1 2 ");
  EXPECT_TRUE(talk_->say("{}"));
  std::array<char, 16> answer{};
  EXPECT_EQ(::recv(other_.get(), answer.data(), answer.size(), 0), 2);
}

TEST_F(SendTalkTest, WhoeverIsNotThereAnyMoreIsGone) {
  say("round");
  other_.reset();
  EXPECT_EQ(heard(), "0 gone");
}

TEST_F(SendTalkTest, WhatIsNoWordEndsIt) {
  for (const std::string& text : {std::string("rounds"), std::string(1000, 'x'), std::string(1, '\0')}) {
    SetUp();
    say(text);
    say("round");
    EXPECT_EQ(heard(), "gone") << text;
  }
}

TEST_F(SendTalkTest, NobodyIsTalkedToInVain) {
  other_.reset();
  EXPECT_FALSE(talk_->say("{}"));
  EXPECT_FALSE(SendTalk::create(*loop_, UniqueFd(), {}));
}

}  // namespace
}  // namespace snug
