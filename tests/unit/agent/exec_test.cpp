// Commands through the client and the real agent.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "tests/unit/agent/fixture.h"

namespace snug::test {
namespace {

using testing::HasSubstr;

std::string many_bytes(size_t count) {
  std::string bytes(count, '\0');
  uint32_t state = 1;
  for (char& byte : bytes) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<char>(state >> 24);
  }
  return bytes;
}

TEST_F(AgentTest, OutputErrorsAndStatusAreKeptApart) {
  const Ran ran = shell("echo out; echo err >&2; exit 7");
  EXPECT_EQ(ran.output, "out\n");
  EXPECT_EQ(ran.errors, "err\n");
  EXPECT_EQ(ran.end.kind, ExecEnd::Kind::kEnded);
  EXPECT_EQ(ran.status(), 7);
}

TEST_F(AgentTest, AKilledCommandHas128AndItsSignal) {
  const Ran ran = shell("kill -9 $$");
  EXPECT_EQ(ran.end.kind, ExecEnd::Kind::kEnded);
  EXPECT_TRUE(ran.end.status.signalled);
  EXPECT_EQ(ran.status(), 137);
}

TEST_F(AgentTest, AMissingCommandIs127AndOneThatCannotRun126) {
  protocol::ExecRequest request;
  request.arguments = {"no-such-command-anywhere"};
  Ran ran = run(request);
  EXPECT_EQ(ran.end.kind, ExecEnd::Kind::kRefused);
  EXPECT_EQ(ran.status(), 127);
  EXPECT_THAT(ran.end.error.text, HasSubstr("no-such-command-anywhere: not found"));
  request.arguments = {"/etc/passwd"};
  ran = run(request);
  EXPECT_EQ(ran.status(), 126);
  request.arguments = {"/etc"};
  EXPECT_EQ(run(request).status(), 126);
}

TEST_F(AgentTest, InputIsBinaryAndEnds) {
  const std::string input("a\0b\xff", 4);
  const Ran ran = shell("cat", input);
  EXPECT_EQ(ran.output, input);
  EXPECT_EQ(ran.status(), 0);
}

TEST_F(AgentTest, MegabytesThereAndBack) {
  const std::string input = many_bytes(8 << 20);
  const Ran ran = shell("cat", input);
  EXPECT_TRUE(ran.output == input);
  EXPECT_EQ(ran.status(), 0);
}

TEST_F(AgentTest, ACommandThatDoesNotReadItsInputEnds) {
  EXPECT_EQ(shell("exit 3", many_bytes(4 << 20)).status(), 3);
  EXPECT_EQ(shell("exec <&-; sleep 0.1; exit 4", many_bytes(4 << 20)).status(), 4);
}

TEST_F(AgentTest, BothOutputsInFloods) {
  const Ran ran = shell("head -c 3000000 /dev/zero >&2; head -c 3000000 /dev/zero; exit 9");
  EXPECT_EQ(ran.output.size(), 3000000u);
  EXPECT_EQ(ran.errors.size(), 3000000u);
  EXPECT_EQ(ran.status(), 9);
}

TEST_F(AgentTest, ABackgroundProcessThatHoldsTheOutputIsNotWaitedFor) {
  const Ran ran = shell("sleep 1000 & echo started; exit 5");
  EXPECT_EQ(ran.output, "started\n");
  EXPECT_EQ(ran.status(), 5);
}

TEST_F(AgentTest, ABackgroundFloodIsNotWaitedFor) { EXPECT_EQ(shell("yes & sleep 0.1; exit 6").status(), 6); }

TEST_F(AgentTest, VariablesAndFolder) {
  protocol::ExecRequest request = shell_request("echo \"$GREETING\"; pwd; echo $HOME");
  request.variables = {"GREETING=hello world", "HOME=/elsewhere"};
  request.folder = "/usr";
  EXPECT_EQ(run(request).output, "hello world\n/usr\n/elsewhere\n");
  request.folder = "/no/such/folder";
  const Ran ran = run(request);
  EXPECT_EQ(ran.status(), 125);
  EXPECT_THAT(ran.end.error.text, HasSubstr("/no/such/folder"));
}

TEST_F(AgentTest, AnUnknownUserIsRefused) {
  protocol::ExecRequest request = shell_request("id");
  request.user = "nobody-of-this-name";
  const Ran ran = run(request);
  EXPECT_EQ(ran.status(), 125);
  EXPECT_THAT(ran.end.error.text, HasSubstr("no user nobody-of-this-name"));
}

TEST_F(AgentTest, AnotherUser) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can become somebody else";
  protocol::ExecRequest request = shell_request("id -u; id -g; id -G");
  request.user = "12345:678";
  EXPECT_EQ(run(request).output, "12345\n678\n678\n");
}

TEST_F(AgentTest, ManyLongArgumentsAndOneTooMany) {
  protocol::ExecRequest request = shell_request("echo $#");
  request.arguments.emplace_back("sh");
  for (int i = 0; i < 15; ++i) request.arguments.emplace_back(100'000, 'x');
  EXPECT_EQ(run(request).output, "15\n");
  request.arguments.emplace_back(protocol::kMaxPayload, 'x');
  ExecSession::Events events;
  auto refused = ExecSession::start(*loop_, connect_agent(), request, {}, std::move(events));
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("too long"));
}

// Sessions whose test takes part in what happens.
struct Live {
  Pipe output;
  std::string seen;
  std::optional<ExecEnd> end;
  std::unique_ptr<ExecSession> session;
  EventLoop::Watch watch;
};

class LiveTest : public AgentTest {
 protected:
  // `on_output`: called with all that has come, whenever more has.
  void start(const protocol::ExecRequest& request, UniqueFd input, std::function<void()> on_output) {
    ExecSession::Streams streams;
    streams.input = std::move(input);
    streams.output = std::move(live_.output.write_end);
    ExecSession::Events events;
    events.ended = [this](ExecEnd end) {
      live_.end = std::move(end);
      loop_->stop();
    };
    auto session =
        ExecSession::start(*loop_, connect_agent(), request, std::move(streams), std::move(events));
    ASSERT_TRUE(session);
    live_.session = std::move(*session);
    auto watch = loop_->watch(live_.output.read_end.get(), EPOLLIN, [this, on_output](uint32_t) {
      std::array<char, 4096> buffer;
      const ssize_t count = ::read(live_.output.read_end.get(), buffer.data(), buffer.size());
      if (count <= 0) return live_.watch.reset();
      live_.seen.append(buffer.data(), static_cast<size_t>(count));
      on_output();
    });
    ASSERT_TRUE(watch);
    live_.watch = std::move(*watch);
  }
  int finish() {
    EXPECT_TRUE(loop_->run());
    if (live_.end && live_.end->kind != ExecEnd::Kind::kEnded) ADD_FAILURE() << live_.end->error.text;
    return live_.end ? live_.end->shell_status() : -1;
  }
  Live live_;
};

TEST_F(LiveTest, SignalsReachTheCommandAndItsChildren) {
  start(shell_request("trap 'echo got; exit 8' TERM; echo ready; sleep 1000 & wait"), {}, [this] {
    if (live_.seen == "ready\n") live_.session->signal(SIGTERM);
  });
  EXPECT_EQ(finish(), 8);
  live_.session.reset();
  EXPECT_THAT(live_.seen, HasSubstr("ready\n"));
}

TEST_F(LiveTest, AnUntrappedSignal) {
  start(shell_request("echo ready; exec sleep 1000"), {}, [this] { live_.session->signal(SIGTERM); });
  EXPECT_EQ(finish(), 143);
}

TEST_F(LiveTest, AConsumerThatGoesAwayIsABrokenPipe) {
  start(shell_request("exec yes"), {}, [this] {
    live_.watch.reset();
    live_.output.read_end.reset();
  });
  ::signal(SIGPIPE, SIG_IGN);
  EXPECT_EQ(finish(), 128 + SIGPIPE);
}

TEST_F(LiveTest, ATerminalHasASizeThatChangesAndCtrlC) {
  protocol::ExecRequest request = shell_request(
      "trap 'stty size; echo sized' WINCH; tty; stty size; while :; do sleep 1000 & wait; kill $!; done");
  request.tty = true;
  request.size = {33, 44};
  Pipe keys;
  start(request, std::move(keys.read_end), [&] {
    if (live_.seen.find("33 44") != std::string::npos && live_.seen.find("55 66") == std::string::npos)
      live_.session->resize({55, 66});
    if (live_.seen.find("sized") != std::string::npos && keys.write_end) {
      EXPECT_EQ(::write(keys.write_end.get(), "\x03", 1), 1);
      keys.write_end.reset();
    }
  });
  EXPECT_EQ(finish(), 128 + SIGINT);
  EXPECT_THAT(live_.seen, HasSubstr("/dev/pts/"));
  EXPECT_THAT(live_.seen, HasSubstr("55 66"));
}

TEST_F(LiveTest, ATerminalsInputEndsWithCtrlD) {
  protocol::ExecRequest request = shell_request("stty -echo; cat; echo done");
  request.tty = true;
  Pipe keys;
  ASSERT_EQ(::write(keys.write_end.get(), "typed\n", 6), 6);
  keys.write_end.reset();
  start(request, std::move(keys.read_end), [] {});
  EXPECT_EQ(finish(), 0);
  while (live_.seen.find("done") == std::string::npos && live_.watch) {
    std::array<char, 4096> buffer;
    live_.session.reset();
    const ssize_t count = ::read(live_.output.read_end.get(), buffer.data(), buffer.size());
    if (count <= 0) break;
    live_.seen.append(buffer.data(), static_cast<size_t>(count));
  }
  EXPECT_THAT(live_.seen, HasSubstr("typed"));
  EXPECT_THAT(live_.seen, HasSubstr("done"));
}

// A client that is gone takes its command along.
TEST_F(LiveTest, AClientThatGoesAwayHangsTheCommandUp) {
  Pipe witness;
  protocol::ExecRequest request =
      shell_request(fmt::format("trap 'echo hup >/proc/{}/fd/{}; exit' HUP; echo ready; sleep 1000 & wait",
                                ::getpid(), witness.write_end.get()));
  start(request, {}, [this] {
    live_.session.reset();
    loop_->stop();
  });
  finish();
  std::array<char, 16> buffer{};
  EXPECT_EQ(::read(witness.read_end.get(), buffer.data(), buffer.size()), 4);
  EXPECT_STREQ(buffer.data(), "hup\n");
}

}  // namespace
}  // namespace snug::test
