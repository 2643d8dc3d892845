#include "vmm/control/console_server.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <fstream>
#include <sstream>
#include <thread>

#include "tests/unit/control/runtime_folder.h"
#include "vmm/control/vm_directory.h"

namespace snug {
namespace {

// The near end of the console is the test's; the loop runs on a thread of its own.
class ConsoleServerTest : public RuntimeFolder {
 protected:
  ConsoleServerTest() {
    directory_.emplace(std::move(*VmDirectory::create("web", Keep::kNo)));
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()), 0);
    near_ = UniqueFd(ends[0]);
    server_ = std::move(*ConsoleServer::create(
        *loop_, directory_->fd(), std::move(*directory_->listen("console.sock")), UniqueFd(ends[1])));
    thread_ = std::thread([this] { EXPECT_TRUE(loop_->run()); });
    vm_ = *find_machine("web");
  }
  ~ConsoleServerTest() override {
    loop_->stop();
    thread_.join();
  }

  void print(std::string_view text) {
    while (!text.empty()) {
      pollfd wait{.fd = near_.get(), .events = POLLOUT, .revents = 0};
      ASSERT_EQ(::poll(&wait, 1, 60'000), 1);
      const ssize_t count = ::send(near_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (count > 0) text.remove_prefix(static_cast<size_t>(count));
    }
  }
  UniqueFd attach() { return std::move(*connect_to(vm_, "console.sock")); }
  // Until `end` has come, or the connection has ended.
  static std::string read_until(const UniqueFd& socket, std::string_view end) {
    std::string text;
    std::array<char, 4096> buffer;
    while (text.find(end) == std::string::npos) {
      pollfd wait{.fd = socket.get(), .events = POLLIN, .revents = 0};
      if (::poll(&wait, 1, 60'000) != 1) return text + " (nothing more came)";
      const ssize_t count = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
      if (count <= 0) break;
      text.append(buffer.data(), static_cast<size_t>(count));
    }
    return text;
  }
  std::string log(const char* file) const {
    std::ifstream stream(directory_->path() + "/" + file);
    std::ostringstream text;
    text << stream.rdbuf();
    return text.str();
  }

  std::unique_ptr<EventLoop> loop_ = std::move(*EventLoop::create());
  std::optional<VmDirectory> directory_;
  UniqueFd near_;
  std::unique_ptr<ConsoleServer> server_;
  FoundVm vm_;
  std::thread thread_;
};

TEST_F(ConsoleServerTest, WhoAttachesSeesTheLastOutputAndWhatFollows) {
  print("before\n");
  const auto first = attach();
  EXPECT_EQ(read_until(first, "before\n"), "before\n");
  const auto second = attach();
  EXPECT_EQ(read_until(second, "before\n"), "before\n");
  print("after\n");
  EXPECT_EQ(read_until(first, "after\n"), "after\n");
  EXPECT_EQ(read_until(second, "after\n"), "after\n");
  EXPECT_EQ(log("console.log"), "before\nafter\n");
}

TEST_F(ConsoleServerTest, WhatIsTypedReachesTheConsole) {
  const auto client = attach();
  ASSERT_EQ(::send(client.get(), "ls\n", 3, MSG_NOSIGNAL), 3);
  EXPECT_EQ(read_until(near_, "\n"), "ls\n");
}

TEST_F(ConsoleServerTest, InputIsHeldBackWhileTheGuestTakesNone) {
  const auto client = attach();
  ::fcntl(client.get(), F_SETFL, O_NONBLOCK);
  const std::string typed(64 << 10, 'x');
  size_t sent = 0;
  // Until neither the client's socket nor the console's takes any more.
  for (;;) {
    pollfd wait{.fd = client.get(), .events = POLLOUT, .revents = 0};
    if (::poll(&wait, 1, 500) != 1) break;
    const ssize_t count = ::send(client.get(), typed.data(), typed.size(), MSG_NOSIGNAL);
    if (count > 0) sent += static_cast<size_t>(count);
    ASSERT_LT(sent, 64U << 20) << "input is not held back";
  }
  // All of it arrives once the guest takes it.
  std::array<char, 4096> buffer;
  for (size_t got = 0; got < sent;) {
    pollfd wait{.fd = near_.get(), .events = POLLIN, .revents = 0};
    ASSERT_EQ(::poll(&wait, 1, 60'000), 1);
    const ssize_t count = ::recv(near_.get(), buffer.data(), buffer.size(), 0);
    if (count > 0) got += static_cast<size_t>(count);
  }
}

TEST_F(ConsoleServerTest, AClientThatTakesNothingDoesNotHoldTheOthersUp) {
  print("hello\n");
  const auto stalled = attach();
  const auto reader = attach();
  EXPECT_EQ(read_until(reader, "hello\n"), "hello\n");
  const std::string line = std::string(16 << 10, 'x') + "\n";
  for (int i = 0; i < 64; ++i) {
    print(line);
    EXPECT_EQ(read_until(reader, "\n"), line);
  }
  EXPECT_EQ(log("console.log").size(), 64 * line.size() + 6);
  // It gets what it has room for, and then learns what it has missed.
  std::string late = read_until(stalled, "x\n");
  while (late.find("left out") == std::string::npos) {
    print("y\n");
    late = read_until(stalled, "y\n");
  }
}

TEST_F(ConsoleServerTest, TheLogIsBounded) {
  print("hello\n");
  const auto reader = attach();
  EXPECT_EQ(read_until(reader, "hello\n"), "hello\n");
  std::thread printer([this] {
    const std::string chunk(64 << 10, 'x');
    for (size_t printed = 0; printed < 3 * BoundedLog::kMost; printed += chunk.size()) print(chunk);
  });
  printer.join();
  print("end\n");
  while (!log("console.log").ends_with("end\n")) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_LE(log("console.log").size(), BoundedLog::kMost);
  EXPECT_LE(log("console.log.1").size(), BoundedLog::kMost);
  EXPECT_TRUE(log("console.log").ends_with("end\n"));
}

TEST_F(ConsoleServerTest, MoreThanTheMostWait) {
  std::vector<UniqueFd> clients;
  for (size_t i = 0; i < ConsoleServer::kMaxClients; ++i) clients.push_back(attach());
  print("hello\n");
  for (const auto& client : clients) EXPECT_EQ(read_until(client, "hello\n"), "hello\n");
  const auto late = attach();
  clients.pop_back();
  EXPECT_EQ(read_until(late, "hello\n"), "hello\n");
}

}  // namespace
}  // namespace snug
