#include "vmm/control/control_server.h"

#include <gmock/gmock.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <future>
#include <thread>

#include "tests/unit/control/fake_target.h"
#include "tests/unit/control/runtime_folder.h"
#include "vmm/control/control_client.h"
#include "vmm/control/vm_directory.h"

namespace snug {
namespace {

using testing::HasSubstr;

// A served directory, its loop on a thread of its own.
class ControlServerTest : public RuntimeFolder {
 protected:
  ControlServerTest() {
    directory_.emplace(std::move(*VmDirectory::create("web", Keep::kNo)));
    server_ =
        std::move(*ControlServer::create(*loop_, std::move(*directory_->listen("control.sock")), target_));
    thread_ = std::thread([this] { EXPECT_TRUE(loop_->run()); });
    vm_ = *find_machine("web");
  }
  ~ControlServerTest() override { stop_loop(); }

  void stop_loop() {
    if (!thread_.joinable()) return;
    loop_->stop();
    thread_.join();
  }
  UniqueFd connect() { return std::move(*connect_to(vm_, "control.sock")); }
  // As the loop's thread sees it.
  size_t server_waiting() {
    std::promise<size_t> count;
    loop_->post([&] { count.set_value(server_->waiting()); });
    return count.get_future().get();
  }
  static void send(const UniqueFd& socket, std::string_view text) {
    EXPECT_EQ(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  static std::string read_all(const UniqueFd& socket) {
    std::string text;
    std::array<char, 4096> buffer;
    for (;;) {
      const ssize_t count = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
      if (count <= 0) return text;
      text.append(buffer.data(), static_cast<size_t>(count));
    }
  }

  FakeTarget target_;
  std::unique_ptr<EventLoop> loop_ = std::move(*EventLoop::create());
  std::optional<VmDirectory> directory_;
  std::unique_ptr<ControlServer> server_;
  FoundVm vm_;
  std::thread thread_;
};

TEST_F(ControlServerTest, AnswersRequests) {
  const auto answer = ask_machine(vm_, "GET", "/v1/vm");
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_EQ(answer->status, 200);
  EXPECT_THAT(answer->body, HasSubstr("\"fake\""));
  EXPECT_EQ(ask_machine(vm_, "POST", "/v1/pause")->status, 200);
  EXPECT_EQ(ask_machine(vm_, "POST", "/v1/pause")->status, 409);
}

TEST_F(ControlServerTest, TheGuestIsAskedForItsPart) {
  target_.guest_answers_after = 3;
  const auto answer = ask_machine(vm_, "GET", "/v1/stats");
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_THAT(answer->body, HasSubstr("\"guest_free_bytes\": 5"));
  EXPECT_EQ(target_.guest_asked, 1);
  EXPECT_EQ(ask_machine(vm_, "GET", "/v1/vm")->status, 200);
  EXPECT_EQ(target_.guest_asked, 1) << "nothing of that is the guest's to know";
}

TEST_F(ControlServerTest, AGuestThatDoesNotAnswerIsNotWaitedForLong) {
  target_.guest_answers_after = 1'000'000'000;
  const auto half_closed = connect();
  send(half_closed, "GET /v1/stats HTTP/1.1\r\n\r\n");
  ::shutdown(half_closed.get(), SHUT_WR);
  { send(connect(), "GET /v1/stats HTTP/1.1\r\n\r\n"); }
  const auto answer = ask_machine(vm_, "GET", "/v1/stats");
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_THAT(answer->body, HasSubstr("\"guest_free_bytes\": 4"));
  EXPECT_THAT(read_all(half_closed), HasSubstr("\"guest_free_bytes\": 4"));
}

TEST_F(ControlServerTest, ABadRequestGetsAnErrorThatArrives) {
  const auto socket = connect();
  // Far more than is read of a request.
  send(socket, "nonsense\r\n\r\n" + std::string(100'000, 'x'));
  EXPECT_THAT(read_all(socket), HasSubstr("HTTP/1.1 400"));
}

TEST_F(ControlServerTest, AHugeBodyIsRefusedBeforeItIsRead) {
  const auto socket = connect();
  send(socket, "POST /v1/stop HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n");
  EXPECT_THAT(read_all(socket), HasSubstr("HTTP/1.1 413"));
  EXPECT_EQ(ask_machine(vm_, "GET", "/v1/vm")->status, 200);
}

TEST_F(ControlServerTest, SilentClientsDoNotKeepOthersOut) {
  std::vector<UniqueFd> silent;
  for (size_t i = 0; i < ControlServer::kMaxClients + 30; ++i) {
    silent.push_back(connect());
    if (i % 2 == 0) send(silent.back(), "GET /v1/vm HT");
  }
  // They are sent away when their patience is over, at the latest.
  const auto answer = ask_machine(vm_, "GET", "/v1/vm", {}, std::chrono::seconds(100));
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_EQ(answer->status, 200);
}

TEST_F(ControlServerTest, ThoseWhoWaitHearOfTheEnd) {
  std::vector<std::thread> waiters;
  for (int i = 0; i < 5; ++i)
    waiters.emplace_back([this] {
      const auto answer = ask_machine(vm_, "GET", "/v1/wait", {}, std::nullopt);
      ASSERT_TRUE(answer) << answer.error().text();
      EXPECT_THAT(answer->body, HasSubstr("\"exit_status\": 7"));
    });
  while (server_waiting() < 5) std::this_thread::yield();
  stop_loop();
  server_->finish(7, "");
  for (auto& waiter : waiters) waiter.join();
}

TEST_F(ControlServerTest, NotEverybodyMayWait) {
  std::vector<UniqueFd> waiting;
  for (size_t i = 0; i < ControlServer::kMaxWaiting; ++i) {
    waiting.push_back(connect());
    send(waiting.back(), "GET /v1/wait HTTP/1.1\r\n\r\n");
  }
  const auto one_more = connect();
  send(one_more, "GET /v1/wait HTTP/1.1\r\n\r\n");
  EXPECT_THAT(read_all(one_more), HasSubstr("HTTP/1.1 503"));
  EXPECT_EQ(ask_machine(vm_, "GET", "/v1/vm")->status, 200);
}

TEST_F(ControlServerTest, WhoLeavesInTheMiddleIsForgotten) {
  for (int i = 0; i < 300; ++i) {
    const auto socket = connect();
    send(socket, i % 2 == 0 ? "GET /v1/vm HTTP/1.1\r\n\r\n" : "GET /v1/wait HTTP/1.1\r\n\r\n");
  }
  EXPECT_EQ(ask_machine(vm_, "GET", "/v1/vm")->status, 200);
}

TEST_F(ControlServerTest, TheServingProcessIsKnown) { EXPECT_EQ(serving_process(vm_), ::getpid()); }

}  // namespace
}  // namespace snug
