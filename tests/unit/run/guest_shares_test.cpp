#include "vmm/run/guest_shares.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <filesystem>
#include <fstream>

namespace snug {
namespace {

using namespace std::chrono_literals;
using protocol::FrameType;
using protocol::MountRequest;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

MountRequest mount(std::string tag, std::string target) {
  return {.tag = std::move(tag), .target = std::move(target), .file = {}, .readonly = false};
}

TEST(PlanOfMounts, ParentsComeFirstAndFilesAreNamed) {
  std::string pattern = testing::TempDir() + "/snug-mounts-XXXXXX";
  const std::string folder = ::mkdtemp(pattern.data());
  std::ofstream(folder + "/motd") << "hello";
  const auto mounts = plan_mounts({{.source = folder, .target = "/work/deep", .tag = "share0"},
                                   {.source = folder, .target = "", .tag = "by-hand"},
                                   {.source = folder, .target = "/work", .tag = "share2", .readonly = true},
                                   {.source = folder + "/motd", .target = "/etc/motd", .tag = "share3"},
                                   {.source = folder, .target = "/data", .tag = "share4"}});
  EXPECT_THAT(mounts,
              ElementsAre(MountRequest{"share2", "/work", "", true}, mount("share4", "/data"),
                          mount("share0", "/work/deep"), MountRequest{"share3", "/etc/motd", "motd", false}));
  std::filesystem::remove_all(folder);
}

// An agent that says what a test wants, once its greeting and the request are there.
class GuestSharesTest : public testing::Test {
 protected:
  void SetUp() override { loop_ = std::move(*EventLoop::create()); }

  void make(std::vector<MountRequest> mounts) {
    shares_ = std::make_unique<GuestShares>(
        *loop_, std::move(mounts),
        [this](VsockHub::Connected connected) { loop_->post([this, connected] { connect(connected); }); },
        GuestShares::Events{.failed = [this](const std::string& why) { failed_.push_back(why); },
                            .done =
                                [this] {
                                  ++done_;
                                  loop_->stop();
                                }});
  }
  void connect(const VsockHub::Connected& connected) {
    if (connect_error_ != 0) return connected(UniqueFd(), connect_error_);
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    far_ = UniqueFd(ends[1]);
    reader_ = {};
    watch_ = *loop_->watch(far_.get(), EPOLLIN, [this](uint32_t) { on_request(); });
    connected(UniqueFd(ends[0]), 0);
  }
  void on_request() {
    std::array<char, 4096> buffer;
    const ssize_t count = ::recv(far_.get(), buffer.data(), buffer.size(), 0);
    if (count <= 0) return watch_.reset();
    reader_.feed({buffer.data(), static_cast<size_t>(count)});
    while (const auto frame = reader_.next()) {
      if (frame->type != FrameType::kMount) continue;
      asked_.push_back(*protocol::decode_mount(frame->payload));
      std::string answer;
      protocol::put_hello(answer, {version_, version_});
      if (asked_.back().tag == "bad")
        protocol::put_error(answer, protocol::ErrorCode::kFailed, "there is no such device");
      else if (asked_.back().tag != "silent")
        put_frame(answer, FrameType::kDone);
      EXPECT_EQ(::send(far_.get(), answer.data(), answer.size(), MSG_NOSIGNAL),
                static_cast<ssize_t>(answer.size()));
    }
  }
  void run(std::chrono::milliseconds bound = 10s) {
    auto timer = loop_->timer([this] { loop_->stop(); });
    timer->arm(bound);
    ASSERT_TRUE(loop_->run());
  }

  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<GuestShares> shares_;
  int connect_error_ = 0;
  uint16_t version_ = protocol::kVersion;
  UniqueFd far_;
  protocol::FrameReader reader_;
  EventLoop::Watch watch_;
  std::vector<MountRequest> asked_;
  std::vector<std::string> failed_;
  int done_ = 0;
};

TEST_F(GuestSharesTest, NoneIsDoneAtOnce) {
  make({});
  shares_->mount();
  EXPECT_EQ(done_, 1);
}

TEST_F(GuestSharesTest, OneAfterTheOther) {
  make({mount("a", "/a"), mount("b", "/b"), mount("c", "/c")});
  shares_->mount();
  EXPECT_EQ(done_, 0);
  run();
  EXPECT_EQ(done_, 1);
  EXPECT_THAT(asked_, ElementsAre(mount("a", "/a"), mount("b", "/b"), mount("c", "/c")));
  EXPECT_THAT(failed_, IsEmpty());
  // After a reset of the guest all of them again.
  shares_->mount();
  run();
  EXPECT_EQ(done_, 2);
  EXPECT_EQ(asked_.size(), 6U);
}

TEST_F(GuestSharesTest, ThoseThatOthersHaveMountedAreDone) {
  make({mount("a", "/a"), mount("b", "/b")});
  std::string frames;
  EXPECT_EQ(shares_->put_all(frames), 2U);
  protocol::FrameReader reader;
  reader.feed(frames);
  EXPECT_EQ(protocol::decode_mount(reader.next()->payload), mount("a", "/a"));
  EXPECT_EQ(protocol::decode_mount(reader.next()->payload), mount("b", "/b"));
  shares_->are_mounted();
  EXPECT_EQ(shares_->outcome("b"), "");
  shares_->mount();
  run();
  EXPECT_EQ(done_, 1);
  EXPECT_THAT(asked_, IsEmpty());
  // A later call of the agent is one as any.
  shares_->mount();
  run();
  EXPECT_EQ(asked_.size(), 2U);
  EXPECT_EQ(done_, 2);
}

TEST_F(GuestSharesTest, OneThatFailsIsSaidAndTheOthersAreTried) {
  make({mount("bad", "/a"), mount("b", "/b")});
  shares_->mount();
  run();
  EXPECT_EQ(done_, 1);
  EXPECT_EQ(asked_.size(), 2U);
  EXPECT_THAT(failed_, ElementsAre("mount bad on /a: the guest's agent: there is no such device"));
  EXPECT_EQ(shares_->outcome("bad"), "the guest's agent: there is no such device");
  EXPECT_EQ(shares_->outcome("b"), "");
  EXPECT_EQ(shares_->outcome("other"), std::nullopt);
  // The guest boots anew.
  shares_->forget();
  EXPECT_EQ(shares_->outcome("b"), std::nullopt);
}

TEST_F(GuestSharesTest, AnOlderAgentIsNamedWithWhatHelps) {
  version_ = 2;
  make({mount("a", "/a")});
  shares_->mount();
  run();
  ASSERT_EQ(failed_.size(), 1U);
  EXPECT_THAT(failed_[0], HasSubstr("mount a on /a: the guest's agent is older than this snug"));
  EXPECT_THAT(failed_[0], HasSubstr("snug image build initrd"));
}

TEST_F(GuestSharesTest, AGuestThatRefusesOrIsGone) {
  connect_error_ = ECONNRESET;
  make({mount("a", "/a")});
  shares_->mount();
  run();
  EXPECT_THAT(failed_, ElementsAre(HasSubstr("mount a on /a: reach the guest's agent: ")));
  EXPECT_EQ(done_, 1);
  // Nothing comes back of a round that was given up.
  connect_error_ = 0;
  make({mount("silent", "/a"), mount("b", "/b")});
  shares_->mount();
  run(50ms);
  EXPECT_EQ(asked_.size(), 1U);
  shares_->forget();
  run(50ms);
  EXPECT_EQ(failed_.size(), 1U);
  EXPECT_EQ(done_, 1);
  // A call in the middle begins anew.
  shares_->mount();
  run(50ms);
  shares_->mount();
  run(50ms);
  EXPECT_EQ(asked_.size(), 3U);
  EXPECT_EQ(failed_.size(), 1U);
}

}  // namespace
}  // namespace snug
