// Commands through the client and the real agent.
#include <fcntl.h>
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

TEST_F(AgentTest, ABackgroundProcessThatHoldsTheOutputIsNotWaitedForWithoutEnd) {
  const Ran ran = shell("sleep 1000 & echo started; exit 5");
  EXPECT_EQ(ran.output, "started\n");
  EXPECT_EQ(ran.status(), 5);
}

TEST_F(AgentTest, ABackgroundFloodIsNotWaitedForWithoutEnd) {
  EXPECT_EQ(run_on(shell_request("yes & sleep 0.1; exit 6"), {}).shell_status(), 6);
}

// As bash has it: exec > >(tee log).
TEST_F(AgentTest, AFilterThatTheCommandWroteThroughIsWaitedFor) {
  const Ran ran = shell("(read line <&3; sleep 0.3; echo late; echo later >&2) 3<&0 & exit 7", "go\n");
  EXPECT_EQ(ran.output, "late\n");
  EXPECT_EQ(ran.errors, "later\n");
  EXPECT_EQ(ran.status(), 7);
}

UniqueFd open_stream(const char* path, int flags) {
  auto fd = open_file(path, flags);
  EXPECT_TRUE(fd);
  return fd ? std::move(*fd) : UniqueFd();
}

TEST_F(AgentTest, ASuccessWhoseOutputIsLostIsNone) {
  ExecSession::Streams streams;
  streams.output = open_stream("/dev/full", O_WRONLY);
  ExecEnd end = run_on(shell_request("echo out"), std::move(streams));
  EXPECT_EQ(end.kind, ExecEnd::Kind::kEnded);
  EXPECT_EQ(end.stream_error, "stdout: No space left on device");
  EXPECT_EQ(end.shell_status(), 125);
  streams.errors = open_stream("/dev/full", O_WRONLY);
  end = run_on(shell_request("echo err >&2; exit 3"), std::move(streams));
  EXPECT_EQ(end.stream_error, "stderr: No space left on device");
  EXPECT_EQ(end.shell_status(), 3);
}

TEST_F(AgentTest, AnInputThatCannotBeReadIsNotAnEmptyOne) {
  ExecSession::Streams streams;
  streams.input = open_stream("/", O_RDONLY);
  ExecEnd end = run_on(shell_request("cat"), std::move(streams));
  EXPECT_EQ(end.stream_error, "stdin: Is a directory");
  EXPECT_EQ(end.shell_status(), 125);
  streams.input = open_stream("/dev/null", O_WRONLY);
  end = run_on(shell_request("cat; exit 4"), std::move(streams));
  EXPECT_EQ(end.stream_error, "stdin: Bad file descriptor");
  EXPECT_EQ(end.shell_status(), 4);
}

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

TEST_F(AgentTest, AnotherUserCanOpenItsStreamsAgain) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can become somebody else";
  protocol::ExecRequest request =
      shell_request("cat /proc/self/fd/0; echo out >/proc/self/fd/1; echo err >/proc/self/fd/2");
  request.user = "12345:678";
  const Ran ran = run(request, "in\n");
  EXPECT_EQ(ran.output, "in\nout\n");
  EXPECT_EQ(ran.errors, "err\n");
  EXPECT_EQ(ran.status(), 0);
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
  EXPECT_THAT(refused.error().message, HasSubstr("131072 bytes; Linux takes 131071"));
}

TEST_F(AgentTest, ManyShortArguments) {
  protocol::ExecRequest request = shell_request("echo $# ${40000}");
  request.arguments.emplace_back("sh");
  for (int i = 0; i < 40'000; ++i) request.arguments.emplace_back("x");
  request.arguments[request.arguments.size() - 1] = "y";
  const Ran ran = run(request);
  EXPECT_EQ(ran.output, "40000 y\n") << ran.end.error.text;
  // As many as Linux takes, but for the rest of the environment.
  const size_t before = exec_size(request);
  request.arguments.emplace_back("x");
  const size_t each = exec_size(request) - before;
  const size_t room = protocol::ExecRequest::kMaxBytes - exec_size(request);
  request.arguments.resize(request.arguments.size() + (room - 4096) / each, "x");
  EXPECT_EQ(run(request).status(), 0);
  request.arguments.resize(request.arguments.size() + 4096 / each + 2, "x");
  ASSERT_GT(exec_size(request), protocol::ExecRequest::kMaxBytes);
  auto refused = ExecSession::start(*loop_, connect_agent(), request, {}, {});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message,
              HasSubstr(std::to_string(request.arguments.size()) + " arguments and variables"));
}

// What is asked for before a command, on its connection.
class BeforeTest : public AgentTest {
 protected:
  void run_behind(const std::string& host_name, uint16_t version = protocol::kGoOnVersion) {
    ExecBefore before{.answers = 1, .version = version};
    protocol::GoOn request{
        .nanoseconds = 1, .seed = std::string(protocol::GoOn::kSeed, 's'), .host_name = host_name};
    put_go_on(before.frames, request);
    before.done = [this](const Result<void>& done) {
      EXPECT_FALSE(end_);
      ++answers_;
      if (done) return;
      why_ = done.error().text();
      loop_->stop();
    };
    ExecSession::Events events;
    events.ended = [this](ExecEnd end) {
      end_ = std::move(end);
      loop_->stop();
    };
    auto session = ExecSession::start(*loop_, connect_agent(), shell_request("exit 7"), {}, std::move(events),
                                      ExecSession::kPatience, std::move(before));
    ASSERT_TRUE(session);
    EXPECT_TRUE(loop_->run());
    EXPECT_EQ(answers_, 1);
  }
  std::string why_;
  int answers_ = 0;
  std::optional<ExecEnd> end_;
};

TEST_F(BeforeTest, IsDoneAndThenTheCommandRuns) {
  run_behind("one");
  EXPECT_EQ(why_, "");
  ASSERT_TRUE(end_);
  EXPECT_EQ(end_->shell_status(), 7);
}

TEST_F(BeforeTest, RefusedIsNoEndOfACommand) {
  run_behind("refused");
  EXPECT_THAT(why_, HasSubstr("cannot be called refused"));
  EXPECT_FALSE(end_);
}

TEST_F(BeforeTest, NotOfAnAgentThatIsOlder) {
  run_behind("one", protocol::kVersion + 1);
  EXPECT_THAT(why_, HasSubstr("older than this snug"));
  EXPECT_FALSE(end_);
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
  void read_to_done();
  std::string typed_to(const std::string& line, const std::string& typed);
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

// What the ended command has printed up to "done" and the loop has not passed on.
void LiveTest::read_to_done() {
  while (live_.seen.find("done") == std::string::npos && live_.watch) {
    std::array<char, 4096> buffer;
    live_.session.reset();
    const ssize_t count = ::read(live_.output.read_end.get(), buffer.data(), buffer.size());
    if (count <= 0) break;
    live_.seen.append(buffer.data(), static_cast<size_t>(count));
  }
  EXPECT_THAT(live_.seen, HasSubstr("done"));
}

// What a command on a terminal prints whose input is at its end behind `typed`.
std::string LiveTest::typed_to(const std::string& line, const std::string& typed) {
  protocol::ExecRequest request = shell_request(line);
  request.tty = true;
  Pipe keys;
  EXPECT_EQ(::write(keys.write_end.get(), typed.data(), typed.size()), static_cast<ssize_t>(typed.size()));
  keys.write_end.reset();
  start(request, std::move(keys.read_end), [] {});
  EXPECT_EQ(finish(), 0);
  read_to_done();
  return live_.seen;
}

TEST_F(LiveTest, ATerminalsInputEndsWithCtrlD) {
  EXPECT_THAT(typed_to("stty -echo; cat; echo done", "typed\n"), HasSubstr("typed"));
}

TEST_F(LiveTest, ATerminalsInputEndsBehindAnUnfinishedLine) {
  EXPECT_THAT(typed_to("stty -echo; cat; echo done", "typed"), HasSubstr("typed"));
}

TEST_F(LiveTest, ATerminalsInputIsAtItsEndForEveryReader) {
  EXPECT_THAT(typed_to("stty -echo; cat; cat; sleep 0.2; cat; echo done", "typed\nand more"),
              HasSubstr("and more"));
}

TEST_F(LiveTest, InRawModeTheEndOfATerminalsInputIsOneKey) {
  // The input ends when the mode is set, and whoever reads the key waits for it without a limit. Then there
  // is a second for another one.
  protocol::ExecRequest request = shell_request(
      "stty raw -echo min 1 time 0; echo raw; dd bs=1 count=1 2>/dev/null | od -An -tx1; "
      "stty min 0 time 10; dd bs=1 2>/dev/null | od -An -tx1; echo done");
  request.tty = true;
  Pipe keys;
  start(request, std::move(keys.read_end), [&] {
    if (live_.seen.find("raw") != std::string::npos) keys.write_end.reset();
  });
  EXPECT_EQ(finish(), 0);
  read_to_done();
  const size_t key = live_.seen.find(" 04");
  EXPECT_NE(key, std::string::npos) << live_.seen;
  EXPECT_EQ(live_.seen.find(" 04", key + 1), std::string::npos) << live_.seen;
}

// --- a command that outlives its connection ------------------------------------------------------------

class KeptTest : public LiveTest {
 protected:
  // Once the command has printed `mark`: keeps it, and is gone.
  void leave_after(const std::string& line, const std::string& mark) {
    start(shell_request(line), {}, [this, mark] {
      if (live_.seen.find(mark) == std::string::npos) return;
      live_.session->keep();
      // What was asked for is on its way.
      loop_->post([this] { loop_->post([this] { loop_->stop(); }); });
    });
    EXPECT_TRUE(loop_->run());
    ::usleep(50'000);
    live_ = Live();
  }
  // The rest of what it prints.
  Ran take_up() {
    Ran ran;
    Pipe output;
    ExecSession::Streams streams;
    streams.output = std::move(output.write_end);
    ExecSession::Events events;
    events.ended = [&](ExecEnd end) {
      ran.end = std::move(end);
      loop_->stop();
    };
    auto session = ExecSession::take_up(*loop_, connect_kept(), std::move(streams), std::move(events));
    EXPECT_TRUE(session);
    EXPECT_TRUE(loop_->run());
    session->reset();
    ran.output = output.read_all();
    return ran;
  }
};

TEST_F(KeptTest, GoesOnWithWhoTakesItUp) {
  Pipe gate;
  leave_after(fmt::format("trap 'echo hung up' HUP; echo first; read x </proc/{}/fd/{}; echo second; exit 7",
                          ::getpid(), gate.read_end.get()),
              "first");
  ASSERT_EQ(::write(gate.write_end.get(), "\n", 1), 1);
  const Ran ran = take_up();
  EXPECT_EQ(ran.output, "second\n");
  EXPECT_EQ(ran.status(), 7) << ran.end.error.text;
}

TEST_F(KeptTest, AndWithTheNextOne) {
  Pipe gate;
  leave_after(
      fmt::format("echo first; read x </proc/{}/fd/{}; echo last; exit 3", ::getpid(), gate.read_end.get()),
      "first");
  {
    // This one comes and goes.
    ExecSession::Events events;
    events.started = [this] { loop_->stop(); };
    events.ended = [](ExecEnd) {};
    auto session = ExecSession::take_up(*loop_, connect_kept(), {}, std::move(events));
    ASSERT_TRUE(session);
    ASSERT_TRUE(loop_->run());
  }
  ASSERT_EQ(::write(gate.write_end.get(), "\n", 1), 1);
  const Ran ran = take_up();
  EXPECT_EQ(ran.output, "last\n");
  EXPECT_EQ(ran.status(), 3) << ran.end.error.text;
}

TEST_F(KeptTest, HasItsEndWhereItEndedMeanwhile) {
  leave_after("echo first; sleep 0.2; exit 5", "first");
  ::usleep(400'000);
  const Ran ran = take_up();
  EXPECT_EQ(ran.output, "");
  EXPECT_EQ(ran.status(), 5) << ran.end.error.text;
}

TEST_F(KeptTest, WithMoreOutputThanAWindow) {
  leave_after("echo first; sleep 0.2; head -c 1000000 /dev/zero | tr '\\0' x; exit 4", "first");
  ::usleep(400'000);
  const UniqueFd reader;
  Ran ran;
  std::string all;
  ExecSession::Events events;
  events.output = [&](uint8_t, std::string_view bytes) { all += bytes; };
  events.ended = [&](ExecEnd end) {
    ran.end = std::move(end);
    loop_->stop();
  };
  auto session = ExecSession::take_up(*loop_, connect_kept(), {}, std::move(events));
  ASSERT_TRUE(session);
  ASSERT_TRUE(loop_->run());
  EXPECT_EQ(ran.status(), 4) << ran.end.error.text;
  EXPECT_EQ(all.size(), 1000000U);
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
