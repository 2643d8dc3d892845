// The machine's end, with a warden that answers on a thread.
#include "vmm/run/warden_link.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <functional>
#include <thread>

namespace snug {
namespace {

using warden::Answer;
using warden::Call;
using warden::CallKind;
using warden::NewsKind;

class WardenLinkTest : public testing::Test {
 protected:
  void SetUp() override {
    loop_ = *EventLoop::create();
    auto [calls, their_calls] = pair();
    auto [news, their_news] = pair();
    calls_ = std::move(their_calls);
    news_ = std::move(their_news);
    link_ = *WardenLink::create(*loop_, std::move(calls), std::move(news));
  }
  void TearDown() override {
    ::shutdown(calls_.get(), SHUT_RDWR);
    if (warden_.joinable()) warden_.join();
  }
  static std::pair<UniqueFd, UniqueFd> pair() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
    return {UniqueFd(ends[0]), UniqueFd(ends[1])};
  }
  // Each call goes to `answer`, until the link is gone.
  void answer_with(std::function<void(const Call&, const std::string&)> answer) {
    warden_ = std::thread([this, answer = std::move(answer)] {
      for (;;) {
        pollfd wait{calls_.get(), POLLIN, 0};
        ::poll(&wait, 1, -1);
        Call call;
        std::string text;
        const int error = warden::receive_packet(calls_.get(), &call, sizeof call, text, nullptr);
        if (error == EAGAIN) continue;
        if (error != 0) return;
        answer(call, text);
      }
    });
  }
  void reply(const Call& call, int error, uint64_t value = 0, int descriptor = -1,
             std::string_view text = {}) const {
    EXPECT_EQ(warden::send(calls_.get(), Answer{call.id, error, value}, text, descriptor), 0);
  }

  std::unique_ptr<EventLoop> loop_;
  UniqueFd calls_, news_;  // the warden's
  std::unique_ptr<WardenLink> link_;
  std::thread warden_;
};

TEST_F(WardenLinkTest, EachCallAsksForWhatItSays) {
  std::vector<std::pair<CallKind, uint64_t>> seen;
  std::vector<std::string> texts;
  answer_with([&](const Call& call, const std::string& text) {
    seen.emplace_back(static_cast<CallKind>(call.kind), call.argument);
    if (!text.empty()) texts.push_back(text);
    reply(call, 0, 42, STDERR_FILENO);
  });
  EXPECT_TRUE(link_->connect_vsock(UINT32_MAX));
  EXPECT_TRUE(link_->start_network(3));
  EXPECT_TRUE(link_->next_log(warden::LogKind::kOutput));
  EXPECT_TRUE(link_->begin_kernel());
  EXPECT_TRUE(link_->keep_kernel());
  link_->seal_kernels();
  link_->stop_networks();
  link_->give_up_network(2);
  EXPECT_EQ(link_->started(), 42U);
  link_->ending(std::chrono::milliseconds(1500));
  link_->ending({});
  link_->suspended();
  link_->ended(-1, "over");
  link_->failed({"no", "hint"});
  EXPECT_THAT(
      seen,
      testing::ElementsAre(
          std::pair(CallKind::kConnectVsock, uint64_t{UINT32_MAX}),
          std::pair(CallKind::kStartNetwork, uint64_t{3}), std::pair(CallKind::kNextLog, uint64_t{1}),
          std::pair(CallKind::kBeginKernel, uint64_t{0}), std::pair(CallKind::kKeepKernel, uint64_t{0}),
          std::pair(CallKind::kSealKernels, uint64_t{0}), std::pair(CallKind::kStopNetworks, uint64_t{0}),
          std::pair(CallKind::kGiveUpNetwork, uint64_t{2}), std::pair(CallKind::kStarted, uint64_t{0}),
          std::pair(CallKind::kEnding, uint64_t{1500}), std::pair(CallKind::kEnding, warden::kForever),
          std::pair(CallKind::kSuspended, uint64_t{0}), std::pair(CallKind::kEnded, uint64_t{UINT32_MAX}),
          std::pair(CallKind::kFailed, uint64_t{0})));
  EXPECT_THAT(texts, testing::ElementsAre("over", std::string("no\0hint", 7)));
}

TEST_F(WardenLinkTest, RefusalsAreTold) {
  answer_with([&](const Call& call, const std::string&) {
    switch (static_cast<CallKind>(call.kind)) {
      case CallKind::kConnectVsock:
        return reply(call, ENOENT);
      case CallKind::kStartNetwork:
        return reply(call, EIO, 0, -1, warden::error_text({"passt: no", "install it"}));
      case CallKind::kNextLog:
        return reply(call, ENOSPC);
      default:
        return reply(call, 0);  // and no descriptor
    }
  });
  EXPECT_EQ(link_->connect_vsock(1).error(), ENOENT);
  EXPECT_EQ(link_->start_network(0).error().text(), "passt: no; install it");
  EXPECT_EQ(link_->next_log(warden::LogKind::kConsole).error().message,
            "ask the warden: No space left on device");
  EXPECT_EQ(link_->begin_kernel().error().message, "ask the warden: Bad file descriptor");
}

TEST_F(WardenLinkTest, AnswersToOthersArePassedOver) {
  answer_with([&](const Call& call, const std::string&) {
    for (uint32_t i = 1; i < 5; ++i) reply({0, call.id - i, 0}, 0, 13, STDERR_FILENO);
    reply(call, 0, 42);
  });
  for (int i = 0; i < 10; ++i) EXPECT_EQ(link_->started(), 42U);
}

TEST_F(WardenLinkTest, ThreadsGetTheirOwnAnswers) {
  answer_with([&](const Call& call, const std::string&) { reply(call, static_cast<int>(call.argument)); });
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (uint32_t own = 1; own <= 4; ++own)
    threads.emplace_back([&, own] {
      for (int i = 0; i < 500; ++i)
        if (link_->connect_vsock(own).error() != static_cast<int>(own)) ++wrong;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST_F(WardenLinkTest, AWardenThatIsGoneAnswersNothing) {
  calls_.reset();
  EXPECT_EQ(link_->connect_vsock(1).error(), EPIPE);
  EXPECT_EQ(link_->begin_kernel().error().message, "ask the warden: Broken pipe");
  EXPECT_EQ(link_->started(), 0U);
  link_->seal_kernels();
  link_->ended(0, "nobody hears it");
}

TEST_F(WardenLinkTest, AWardenThatGoesWhileItIsWaitedFor) {
  answer_with([&](const Call&, const std::string&) { ::shutdown(calls_.get(), SHUT_RDWR); });
  EXPECT_EQ(link_->connect_vsock(1).error(), EPIPE);
}

TEST_F(WardenLinkTest, NewsComeInOrder) {
  std::vector<std::string> heard;
  WardenLink::News news;
  news.signal = [&](int number, bool own) { heard.push_back(fmt::format("signal {} {}", number, own)); };
  news.network_connected = [&](size_t interface, UniqueFd socket) {
    heard.push_back(fmt::format("connected {} {}", interface, static_cast<bool>(socket)));
  };
  news.network_lost = [&](size_t interface) { heard.push_back(fmt::format("lost {}", interface)); };
  news.gone = [&] {
    heard.emplace_back("gone");
    loop_->stop();
  };
  link_->on_news(std::move(news));
  const auto tell = [&](uint32_t kind, uint32_t number, uint32_t flag, int descriptor = -1) {
    EXPECT_EQ(warden::send(news_.get(), warden::News{kind, number, flag}, {}, descriptor), 0);
  };
  tell(static_cast<uint32_t>(NewsKind::kSignal), 15, 1);
  tell(static_cast<uint32_t>(NewsKind::kSignal), 18, 0);
  tell(static_cast<uint32_t>(NewsKind::kNetworkLost), 2, 0);
  tell(static_cast<uint32_t>(NewsKind::kNetworkConnected), 2, 0, STDERR_FILENO);
  tell(99, 0, 0);  // of a later warden
  news_.reset();
  ASSERT_TRUE(loop_->run());
  EXPECT_THAT(
      heard, testing::ElementsAre("signal 15 true", "signal 18 false", "lost 2", "connected 2 true", "gone"));
}

}  // namespace
}  // namespace snug
