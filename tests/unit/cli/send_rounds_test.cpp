// When a machine that is sent stands still, by what it says of its rounds; and what it says that makes no
// sense.
#include "vmm/cli/send_rounds.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <thread>

#include "tests/unit/control/fake_target.h"
#include "tests/unit/control/runtime_folder.h"
#include "vmm/base/sparse_file.h"
#include "vmm/control/control_server.h"
#include "vmm/control/vm_directory.h"

namespace snug::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint64_t kPages = 4096;

// Has answers by heart; "" is silence, and the end.
class TalkingMachine final : public FakeTarget {
 public:
  ~TalkingMachine() override { end(); }
  void end() {
    if (thread_.joinable()) thread_.join();
  }
  Result<void> send(SnapshotFiles files, SendingEnds ends) override {
    thread_ = std::thread([this, files = std::move(files), ends = std::move(ends)] {
      // A list of all pages, and memory of which all is something.
      const std::vector<uint64_t> all(kPages / 64, ~uint64_t{0});
      EXPECT_TRUE(write_at(ends.pages.get(), std::as_bytes(std::span(all)), 0));
      const std::string memory(kPages * 4096, 'm');
      EXPECT_TRUE(write_at(files.memory.get(), std::as_bytes(std::span(memory)), 0));
      for (const std::string& answer : answers) {
        std::array<char, 64> word{};
        const ssize_t count = ::recv(ends.talk.get(), word.data(), word.size(), 0);
        if (count <= 0) break;
        words.emplace_back(word.data(), static_cast<size_t>(count));
        if (answer.empty()) break;
        (void)::send(ends.talk.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
      }
    });
    return {};
  }

  std::vector<std::string> answers;
  std::vector<std::string> words;

 private:
  std::thread thread_;
};

std::string round_of(uint64_t pages) { return fmt::format(R"({{"pages": {}, "tells": true}})", pages); }

class SendRoundsTest : public RuntimeFolder {
 protected:
  SendRoundsTest() {
    ::setenv("XDG_DATA_HOME", path_.c_str(), 1);
    directory_.emplace(std::move(*VmDirectory::create("m", Keep::kNo)));
    server_ =
        std::move(*ControlServer::create(*loop_, std::move(*directory_->listen("control.sock")), target_));
    thread_ = std::thread([this] { EXPECT_TRUE(loop_->run()); });
    out_ = UniqueFd(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  }
  ~SendRoundsTest() override {
    loop_->stop();
    thread_.join();
    ::unsetenv("XDG_DATA_HOME");
  }

  // Of a machine with these answers; the words that it has heard are target_'s. What the rounds have failed
  // with; "": they have not.
  std::string run(std::vector<std::string> answers, const Downtime& downtime = {}) {
    target_.words.clear();
    target_.answers = std::move(answers);
    auto machine = SentMachine::begin(*find_machine("m"));
    if (!machine) return machine.error().text();
    StreamWriter stream(out_.get());
    SendRounds rounds(*machine, stream, "m", downtime);
    auto done = rounds.run();
    if (done)
      if (auto last = rounds.finish(); !last) done = tl::unexpected(last.error());
    bytes_ = stream.bytes();
    machine->give_up();
    target_.end();
    return done ? "" : done.error().text();
  }

  TalkingMachine target_;
  std::unique_ptr<EventLoop> loop_ = std::move(*EventLoop::create());
  std::optional<VmDirectory> directory_;
  std::unique_ptr<ControlServer> server_;
  std::thread thread_;
  UniqueFd out_;
  uint64_t bytes_ = 0;
};

TEST_F(SendRoundsTest, RoundsGoOnAsLongAsTheyLeaveLess) {
  const Downtime hour{.limit = std::chrono::hours(1)};
  EXPECT_EQ(run({round_of(kPages), round_of(4000), round_of(1500), round_of(1400), round_of(1)}, hour), "");
  EXPECT_THAT(target_.words, ElementsAre("round", "round", "round", "round", "stand still"));
  // Few are not worth another.
  EXPECT_EQ(run({round_of(kPages), round_of(100), round_of(1)}, hour), "");
  EXPECT_THAT(target_.words, ElementsAre("round", "round", "stand still"));
}

TEST_F(SendRoundsTest, TheyHaveAnEnd) {
  std::vector<std::string> answers(20, round_of(kPages));
  const Downtime none{.limit = std::chrono::milliseconds(0)};
  EXPECT_EQ(run(answers, none), "");
  EXPECT_EQ(target_.words.size(), 13u);
  EXPECT_EQ(target_.words.back(), "stand still");
  EXPECT_THAT(run(answers, {.limit = std::chrono::milliseconds(0), .must = true}),
              HasSubstr("more quickly than that goes"));
  EXPECT_EQ(target_.words.back(), "round");
}

TEST_F(SendRoundsTest, AHostThatDoesNotTellWhatChanges) {
  const std::string nothing = R"({"pages": 0, "tells": false})";
  EXPECT_EQ(run({nothing, nothing}), "");
  EXPECT_THAT(target_.words, ElementsAre("round", "stand still"));
  EXPECT_GT(bytes_, kPages * 4096) << "its memory has not gone";
  EXPECT_THAT(run({nothing}, {.must = true}), HasSubstr("does not tell"));
  EXPECT_LT(bytes_, 4096u);
}

TEST_F(SendRoundsTest, WhatGoesWrongThereIsSaidHere) {
  EXPECT_EQ(run({R"({"error": "it is full"})"}), "it is full");
  EXPECT_EQ(run({round_of(kPages), R"({"error": "it has ended"})"}), "it has ended");
  EXPECT_THAT(run({""}), HasSubstr("m has ended"));
  EXPECT_THAT(run({"[]"}), HasSubstr("cannot be read"));
  EXPECT_THAT(run({"{"}), HasSubstr("cannot be read"));
  // Members of other kinds are as good as none.
  EXPECT_EQ(run({R"({"pages": "x", "tells": 7})", R"({"error": 1, "commands": []})"}), "");
}

}  // namespace
}  // namespace snug::cli
