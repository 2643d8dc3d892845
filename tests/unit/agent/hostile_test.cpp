// Ends of the protocol that speak garbage, flood, half-close or say nothing: the other end is none the worse.
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <random>
#include <thread>

#include "tests/unit/agent/fixture.h"
#include "vmm/agent/agent_request.h"
#include "vmm/agent/dial.h"

namespace snug::test {
namespace {

using protocol::FrameType;
using testing::HasSubstr;

struct Pair {
  UniqueFd near, far;
  Pair() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    near = UniqueFd(ends[0]);
    far = UniqueFd(ends[1]);
  }
};

void say(const UniqueFd& end, const std::string& bytes) {
  EXPECT_EQ(::send(end.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
}

class HostileAgentTest : public AgentTest {
 protected:
  // A session with whoever has the other end of `pair`; its end comes into `result` and stops the loop.
  std::unique_ptr<ExecSession> session_with(Pair& pair, ExecEnd& result, ExecSession::Streams streams = {},
                                            std::chrono::milliseconds patience = ExecSession::kPatience) {
    ExecSession::Events events;
    events.ended = [this, &result](ExecEnd end) {
      result = std::move(end);
      loop_->stop();
    };
    auto session = ExecSession::start(*loop_, std::move(pair.near), shell_request("true"), std::move(streams),
                                      std::move(events), patience);
    EXPECT_TRUE(session);
    return session ? std::move(*session) : nullptr;
  }
  // The session's end against an agent that says `bytes` and closes, or not.
  ExecEnd against(const std::string& bytes, bool closes = true) {
    Pair pair;
    ExecEnd result;
    const auto session = session_with(pair, result);
    std::thread agent([&] {
      size_t sent = 0;
      while (sent < bytes.size()) {
        const ssize_t count = ::send(pair.far.get(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
        if (count <= 0) break;
        sent += static_cast<size_t>(count);
      }
      if (closes) ::shutdown(pair.far.get(), SHUT_WR);
    });
    EXPECT_TRUE(loop_->run());
    agent.join();
    return result;
  }
  static std::string greeting() {
    std::string bytes;
    protocol::put_hello(bytes, {protocol::kVersion, protocol::kVersion});
    return bytes;
  }
  static std::string running() {
    std::string bytes = greeting();
    put_number32(bytes, FrameType::kStarted, 7);
    return bytes;
  }
  static std::string exit_frame(uint8_t kind, uint8_t value) {
    std::string bytes;
    put_frame(bytes, FrameType::kExit, protocol::Encoder().u8(kind).u8(value).bytes());
    return bytes;
  }
};

TEST_F(HostileAgentTest, NoStatusIsNever0) {
  for (const std::string& bytes :
       {std::string(), greeting(), running(), running().substr(0, 20), greeting() + exit_frame(0, 0),
        exit_frame(0, 0), running() + exit_frame(2, 0), running() + exit_frame(1, 0),
        running() + exit_frame(0, 0).substr(0, 9)}) {
    const ExecEnd end = against(bytes);
    EXPECT_EQ(end.kind, ExecEnd::Kind::kLost);
    EXPECT_EQ(end.shell_status(), 125);
    EXPECT_FALSE(end.error.text.empty());
  }
  EXPECT_EQ(against(running() + exit_frame(0, 0)).shell_status(), 0);
}

TEST_F(HostileAgentTest, AnotherVersionIsRefusedInWords) {
  std::string bytes;
  protocol::put_hello(bytes, {9, 9});
  const ExecEnd end = against(bytes, false);
  EXPECT_THAT(end.error.text, HasSubstr("version 9"));
  EXPECT_EQ(end.shell_status(), 125);
}

TEST_F(HostileAgentTest, FramesOutOfPlace) {
  std::string data, credit, argument, huge(8, '\xff');
  put_frame(data, FrameType::kData, "x", 0);
  put_number32(credit, FrameType::kCredit, 1, protocol::kInput);
  put_frame(argument, FrameType::kArgument, "x");
  for (const std::string& bytes : {data, credit, argument, huge})
    EXPECT_EQ(against(running() + bytes + exit_frame(0, 0)).kind, ExecEnd::Kind::kLost);
}

TEST_F(HostileAgentTest, MoreThanItsCreditEndsTheSession) {
  std::string flood = running();
  const std::string chunk(protocol::kDataChunk, 'x');
  for (int i = 0; i < 40; ++i) put_frame(flood, FrameType::kData, chunk, protocol::kOutput);
  // Nothing is to be written to: credit comes back at once, and the flood is taken to its end.
  EXPECT_EQ(against(flood + exit_frame(0, 0)).kind, ExecEnd::Kind::kEnded);
  // A consumer that takes nothing meanwhile: the window is all that is held, and then it is over.
  Pipe pipe;
  Pair pair;
  ExecEnd result;
  ExecSession::Streams streams;
  streams.output = std::move(pipe.write_end);
  auto session = session_with(pair, result, std::move(streams));
  ASSERT_TRUE(session);
  std::string delivered;
  std::thread agent([&] {
    // Until the session closes its end.
    (void)!::send(pair.far.get(), flood.data(), flood.size(), MSG_NOSIGNAL);
    delivered = pipe.read_all();
  });
  EXPECT_TRUE(loop_->run());
  session.reset();
  agent.join();
  EXPECT_EQ(result.kind, ExecEnd::Kind::kLost);
  EXPECT_THAT(result.error.text, HasSubstr("more than it may"));
  EXPECT_EQ(result.shell_status(), 125);
  EXPECT_GT(delivered.size(), 0u);
  EXPECT_LE(delivered.size(), size_t{protocol::kWindow} + 65536);
}

TEST_F(HostileAgentTest, OneThatNeverAnswersIsNotWaitedForForEver) {
  for (const std::string& said :
       {std::string(), greeting().substr(0, 9), greeting(), greeting() + std::string(7, '\0')}) {
    Pair pair;
    ExecEnd result;
    const auto session = session_with(pair, result, {}, std::chrono::milliseconds(100));
    say(pair.far, said);
    EXPECT_TRUE(loop_->run());
    EXPECT_EQ(result.shell_status(), 125);
    EXPECT_THAT(result.error.text, HasSubstr("did not answer within 0.1 s"));
  }
}

// A command may run for any time.
TEST_F(HostileAgentTest, ThePatienceIsForTheStart) {
  Pair pair;
  ExecEnd result;
  const auto session = session_with(pair, result, {}, std::chrono::milliseconds(1000));
  say(pair.far, running());
  auto timer = loop_->timer([&] { say(pair.far, exit_frame(0, 4)); });
  ASSERT_TRUE(timer);
  timer->arm(std::chrono::milliseconds(1300));
  EXPECT_TRUE(loop_->run());
  EXPECT_EQ(result.shell_status(), 4);
}

TEST(DialTest, AnswersAndWhatIsNone) {
  const auto outcome = [](const std::string& answer, bool ends = true) {
    Pair pair;
    (void)!::send(pair.far.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    if (ends) ::shutdown(pair.far.get(), SHUT_WR);
    const auto taken = dial(pair.near.get(), 1000, std::chrono::milliseconds(ends ? 10'000 : 50));
    std::array<char, 32> rest{};
    const ssize_t count = ::recv(pair.near.get(), rest.data(), rest.size(), MSG_DONTWAIT);
    if (!taken) return taken.error().message;
    return fmt::format("{} {}", *taken,
                       std::string(rest.data(), static_cast<size_t>(std::max<ssize_t>(count, 0))));
  };
  EXPECT_EQ(outcome("OK 5\nthe guest's"), "true the guest's");
  EXPECT_EQ(outcome(""), "false ");
  for (const std::string& odd :
       {std::string("NO\n"), std::string("OK"), std::string("\n"), std::string(100, 'x')})
    EXPECT_THAT(outcome(odd), HasSubstr("odd answer")) << odd;
  EXPECT_THAT(outcome("", false), HasSubstr("does not answer"));
  EXPECT_THAT(outcome("OK 5", false), HasSubstr("does not answer"));
}

TEST_F(HostileAgentTest, Garbage) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    std::string bytes = round % 2 == 0 ? "" : running();
    for (size_t i = random() % 4000; i > 0; --i) bytes += static_cast<char>(random());
    EXPECT_NE(against(bytes).shell_status(), 0);
  }
}

TEST_F(HostileAgentTest, ErrorTextsAreMadePrintable) {
  std::string bytes = greeting();
  protocol::put_error(bytes, protocol::ErrorCode::kNotFound,
                      std::string("\x1b[2J\n") + std::string(100'000, 'x'));
  const ExecEnd end = against(bytes);
  EXPECT_EQ(end.shell_status(), 127);
  EXPECT_LE(end.error.text.size(), 1024u);
  EXPECT_EQ(end.error.text.find('\x1b'), std::string::npos);
}

TEST_F(HostileAgentTest, ARequestIsAnsweredRefusedOrTimesOut) {
  const auto outcome = [&](const std::string& bytes, bool real_agent = false, uint64_t time = 1) {
    Pair pair;
    std::string frame;
    protocol::put_set_time(frame, time);
    std::optional<Result<void>> result;
    auto request =
        AgentRequest::start(*loop_, real_agent ? connect_agent() : std::move(pair.near), frame,
                            std::chrono::milliseconds(real_agent ? 10'000 : 200), [&](Result<void> done) {
                              result = std::move(done);
                              loop_->stop();
                            });
    EXPECT_TRUE(request);
    say(pair.far, bytes);
    EXPECT_TRUE(loop_->run());
    return result->has_value() ? std::string("done") : result->error().message;
  };
  EXPECT_EQ(outcome("", true), "done");
  EXPECT_THAT(outcome("", true, 0), HasSubstr("not permitted"));
  EXPECT_THAT(outcome(""), HasSubstr("in time"));
  EXPECT_THAT(outcome(greeting()), HasSubstr("in time"));
  EXPECT_THAT(outcome("what is this, it is no frame"), HasSubstr("cannot be"));
}

TEST_F(HostileAgentTest, AnEndIsAnAnswerOnlyOfAGuestThatIsToGo) {
  const auto outcome = [&](bool end_is_answer, const std::string& bytes) {
    Pair pair;
    std::string frame, text;
    protocol::put_power(frame, protocol::PowerAction::kOff);
    auto request = AgentRequest::start(*loop_, std::move(pair.near), frame, std::chrono::seconds(10),
                                       [&](const Result<void>& done) {
                                         text = done ? "done" : done.error().message;
                                         loop_->stop();
                                       },
                                       {.end_is_answer = end_is_answer});
    EXPECT_TRUE(request);
    say(pair.far, bytes);
    pair.far.reset();
    EXPECT_TRUE(loop_->run());
    return text;
  };
  std::string refusal = greeting();
  protocol::put_error(refusal, protocol::ErrorCode::kFailed, "not now");
  EXPECT_EQ(outcome(true, ""), "done");
  EXPECT_EQ(outcome(true, greeting()), "done");
  EXPECT_THAT(outcome(true, refusal), HasSubstr("not now"));
  EXPECT_THAT(outcome(false, greeting()), HasSubstr("closed the connection"));
}

TEST_F(HostileAgentTest, RequestsBehindEachOtherAreAnsweredOneByOne) {
  const auto outcome = [&](const std::string& host_name, std::vector<protocol::Begin::HardwareAddress> all) {
    std::string frames;
    protocol::put_go_on(frames, {1, std::string(protocol::GoOn::kSeed, 's'), host_name});
    protocol::put_begin(frames, {std::move(all)});
    std::string text;
    auto request = AgentRequest::start(*loop_, connect_agent(), frames, std::chrono::seconds(10),
                                       [&](const Result<void>& done) {
                                         text = done ? "done" : done.error().message;
                                         loop_->stop();
                                       },
                                       {.version = protocol::kBeginVersion, .answers = 2});
    EXPECT_TRUE(request);
    EXPECT_TRUE(loop_->run());
    return text;
  };
  EXPECT_EQ(outcome("name", {{2, 0, 0, 0, 0, 1}}), "done");
  EXPECT_THAT(outcome("refused", {{2, 0, 0, 0, 0, 1}}), HasSubstr("cannot be called refused"));
  EXPECT_THAT(outcome("name", {}), HasSubstr("there is no interface"));
}

TEST(BeginRequest, IsReadOnlyAsItIsWritten) {
  const protocol::Begin two{{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}}};
  std::string frame;
  protocol::put_begin(frame, two);
  const std::string payload = frame.substr(protocol::kHeaderSize);
  EXPECT_EQ(protocol::decode_begin(payload)->addresses, two.addresses);
  EXPECT_TRUE(protocol::decode_begin(std::string(1, '\0'))->addresses.empty());
  EXPECT_FALSE(protocol::decode_begin(""));
  EXPECT_FALSE(protocol::decode_begin(payload + "x"));
  EXPECT_FALSE(protocol::decode_begin(payload.substr(0, payload.size() - 1)));
  EXPECT_FALSE(protocol::decode_begin("\x09" + std::string(54, 'x')));
  EXPECT_EQ(protocol::decode_begin(payload)->words, "");
  std::string told;
  protocol::put_begin(told, {two.addresses, "snug.volume=/data"});
  told.erase(0, protocol::kHeaderSize);
  EXPECT_EQ(protocol::decode_begin(told)->addresses, two.addresses);
  EXPECT_EQ(protocol::decode_begin(told)->words, "snug.volume=/data");
  EXPECT_FALSE(protocol::decode_begin(told + "x"));
  EXPECT_FALSE(protocol::decode_begin(told.substr(0, told.size() - 1)));
  told.back() = '\0';
  EXPECT_FALSE(protocol::decode_begin(told));
  const std::vector<protocol::AddressChange> changes{{{1, 2, 3, 4, 5, 6}, {2, 2, 2, 2, 2, 2}}, {}};
  std::string other;
  protocol::put_readdress(other, changes);
  other.erase(0, protocol::kHeaderSize);
  EXPECT_EQ(protocol::decode_readdress(other), changes);
  EXPECT_FALSE(protocol::decode_readdress(other + "x"));
  EXPECT_FALSE(protocol::decode_readdress(other.substr(1)));
  EXPECT_FALSE(protocol::decode_readdress("\x09" + std::string(108, 'x')));
}

// --- a hostile client, against the real agent ---------------------------------------------------------

std::string answer_to(const std::string& bytes) {
  const UniqueFd agent = connect_agent();
  say(agent, bytes);
  ::shutdown(agent.get(), SHUT_WR);
  std::string answer;
  std::array<char, 4096> buffer;
  for (ssize_t count; (count = ::recv(agent.get(), buffer.data(), buffer.size(), 0)) > 0;)
    answer.append(buffer.data(), static_cast<size_t>(count));
  return answer;
}

TEST(HostileClientTest, IsRefusedInWords) {
  std::string hello, other;
  protocol::put_hello(hello, {});
  protocol::put_hello(other, {protocol::kVersion + 1, protocol::kVersion + 2});
  EXPECT_THAT(answer_to(other),
              HasSubstr(fmt::format("speaks versions 1 to {} of the protocol, the client {} to {}",
                                    protocol::kVersion, protocol::kVersion + 1, protocol::kVersion + 2)));
  EXPECT_THAT(answer_to("GET / HTTP/1.1\r\n\r\n"), HasSubstr("not the protocol"));
  std::string bytes = hello;
  put_frame(bytes, FrameType::kExec, "short");
  EXPECT_THAT(answer_to(bytes), HasSubstr("malformed command"));
  bytes = hello;
  put_frame(bytes, FrameType::kSignal, "");
  EXPECT_THAT(answer_to(bytes), HasSubstr("does not know"));
  bytes = hello;
  put_frame(bytes, static_cast<FrameType>(200), "");
  EXPECT_THAT(answer_to(bytes), HasSubstr("does not know"));
  bytes = hello;
  for (int i = 0; i < 40; ++i) put_frame(bytes, FrameType::kArgument, std::string(100'000, 'x'));
  EXPECT_THAT(answer_to(bytes), HasSubstr("more arguments"));
}

}  // namespace
}  // namespace snug::test
