#include "vmm/host/console.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace snug {
namespace {

using namespace std::chrono_literals;

// The output goes to a fifo: a pipe with a name, which can stall and be closed.
class ConsoleTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "snug-console-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    auto loop = EventLoop::create();
    ASSERT_TRUE(loop);
    loop_ = std::move(*loop);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<Console> open(ConsoleKind kind, const std::string& path = {}) {
    ConsoleSpec spec;
    spec.kind = kind;
    spec.path = path;
    auto console = Console::open(spec, *loop_, [] {});
    EXPECT_TRUE(console) << console.error().text();
    return std::move(*console);
  }
  static void transmit(Console& console, std::string_view text) {
    console.transmit(std::as_bytes(std::span(text)));
  }
  void run_for(std::chrono::milliseconds time) {
    auto timer = loop_->timer([this] { loop_->stop(); });
    ASSERT_TRUE(timer);
    timer->arm(time);
    ASSERT_TRUE(loop_->run());
  }

  std::filesystem::path folder_;
  std::unique_ptr<EventLoop> loop_;
};

TEST_F(ConsoleTest, WritesAFileWhole) {
  const auto path = (folder_ / "log").string();
  auto console = open(ConsoleKind::kFile, path);
  std::string expected;
  for (int i = 0; i < 5000; ++i) {
    const auto line = fmt::format("line {}\n", i);
    transmit(*console, line);
    expected += line;
  }
  console->finish(1000ms);
  std::ifstream file(path);
  std::stringstream content;
  content << file.rdbuf();
  EXPECT_EQ(content.str(), expected);
  EXPECT_EQ(console->dropped_bytes(), 0u);
  EXPECT_EQ(console->tail().last_line(), "line 4999");
}

TEST_F(ConsoleTest, AStalledConsumerLosesTheNewestBytesAndIsCounted) {
  const auto path = (folder_ / "fifo").string();
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const UniqueFd reader(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  auto console = open(ConsoleKind::kFile, path);
  const std::string block(4096, 'x');
  uint64_t sent = 0;
  // A vCPU that prints 8 MiB into a pipe that nobody reads gets on with it.
  std::thread vcpu([&] {
    for (int i = 0; i < 2048; ++i) {
      transmit(*console, block);
      sent += block.size();
    }
  });
  run_for(50ms);
  vcpu.join();
  run_for(10ms);
  console->finish(10ms);
  uint64_t arrived = 0;
  std::array<char, 65536> buffer;
  for (ssize_t count = 0; (count = ::read(reader.get(), buffer.data(), buffer.size())) > 0;)
    arrived += static_cast<uint64_t>(count);
  EXPECT_GT(arrived, 0u);
  EXPECT_EQ(arrived + console->dropped_bytes(), sent);
}

TEST_F(ConsoleTest, AConsumerThatComesBackGetsWhatWasBuffered) {
  const auto path = (folder_ / "fifo").string();
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const UniqueFd reader(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  auto console = open(ConsoleKind::kFile, path);
  const std::string block(4096, 'x');
  for (int i = 0; i < 64; ++i) transmit(*console, block);
  run_for(10ms);
  uint64_t arrived = 0;
  std::array<char, 65536> buffer;
  for (int round = 0; round < 100 && arrived < 64u * 4096; ++round) {
    for (ssize_t count = 0; (count = ::read(reader.get(), buffer.data(), buffer.size())) > 0;)
      arrived += static_cast<uint64_t>(count);
    run_for(2ms);
  }
  EXPECT_EQ(arrived, 64u * 4096);
  EXPECT_EQ(console->dropped_bytes(), 0u);
}

TEST_F(ConsoleTest, AClosedConsumerIsSurvived) {
  const auto path = (folder_ / "fifo").string();
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  UniqueFd reader(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  ::signal(SIGPIPE, SIG_IGN);
  auto console = open(ConsoleKind::kFile, path);
  reader.reset();
  for (int i = 0; i < 100; ++i) transmit(*console, "nobody hears this\n");
  run_for(5ms);
  console->finish(10ms);
  EXPECT_EQ(console->dropped_bytes(), 1800u);
  EXPECT_EQ(console->tail().last_line(), "nobody hears this");
}

TEST_F(ConsoleTest, InputWaitsForTheGuestAndIsFlowControlled) {
  auto console = open(ConsoleKind::kPty);
  const UniqueFd typist(::open(console->pty_path().c_str(), O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  ASSERT_TRUE(typist);
  std::string heard;
  size_t room = 0;
  console->connect([&](std::span<const std::byte> bytes) {
    const size_t taken = std::min(room, bytes.size());
    heard.append(reinterpret_cast<const char*>(bytes.data()), taken);
    room -= taken;
    return taken;
  });
  ASSERT_EQ(::write(typist.get(), "hello", 5), 5);
  run_for(10ms);
  EXPECT_EQ(heard, "") << "input before the guest opened its port";
  room = 3;
  console->guest_opened();
  run_for(10ms);
  EXPECT_EQ(heard, "hel");
  room = 100;
  console->input_space();
  run_for(50ms);
  EXPECT_EQ(heard, "hello");
}

// Else a paste keeps the guest in its interrupt handler and nothing in it ever reads what came.
TEST_F(ConsoleTest, GuestHasAsLongForItselfAsItTookToReadItsInput) {
  auto console = open(ConsoleKind::kPty);
  const UniqueFd typist(::open(console->pty_path().c_str(), O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  ASSERT_TRUE(typist);
  std::string heard;
  console->connect([&](std::span<const std::byte> bytes) {
    heard.push_back(static_cast<char>(bytes.front()));
    return size_t{1};
  });
  ASSERT_EQ(::write(typist.get(), "paste", 5), 5);
  console->guest_opened();
  const auto opened = std::chrono::steady_clock::now();
  while (heard.empty() && std::chrono::steady_clock::now() - opened < 60s) run_for(1ms);
  const auto handed_over = std::chrono::steady_clock::now();
  run_for(30ms);
  ASSERT_EQ(heard, "p");
  const auto start = std::chrono::steady_clock::now();
  console->input_space();
  while (heard == "p" && std::chrono::steady_clock::now() - start < 60s) run_for(1ms);
  EXPECT_EQ(heard, "pa");
  // There is a longest rest, too.
  EXPECT_GE(std::chrono::steady_clock::now() - start,
            std::min<std::chrono::nanoseconds>(start - handed_over, 30ms));
}

TEST_F(ConsoleTest, NoneTakesEverything) {
  auto console = open(ConsoleKind::kNone);
  for (int i = 0; i < 1000; ++i) transmit(*console, std::string(4096, 'x'));
  run_for(5ms);
  console->finish(10ms);
  EXPECT_EQ(console->dropped_bytes(), 0u);
}

}  // namespace
}  // namespace snug
