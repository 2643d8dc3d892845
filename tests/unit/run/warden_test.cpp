// The warden in front of machines that lie, babble and die: each is a child of this program that says what it
// likes on the machine's ends of the sockets. What it finds itself is its exit status.
#include "vmm/run/warden.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>

#include "vmm/base/log.h"
#include "vmm/jail/confine.h"
#include "vmm/jail/process.h"
#include "vmm/jail/steps.h"
#include "vmm/run/warden_protocol.h"

namespace snug {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;
using warden::Answer;
using warden::Call;
using warden::CallKind;
using warden::NewsKind;
using warden::Packet;

constexpr int kPatience = 60'000;  // milliseconds
constexpr size_t kIndexOfTap = 1;

// --- the machine's process ----------------------------------------------------------------------------

struct Ends {
  int calls;
  int news;
};

bool wait_readable(int socket) {
  pollfd wait{socket, POLLIN, 0};
  return ::poll(&wait, 1, kPatience) > 0;
}

// Waits while there is no room. An errno.
int tell(int socket, const Call& call, std::string_view text = {}, int descriptor = -1) {
  for (;;) {
    const int error = warden::send(socket, call, text, descriptor);
    if (error != EAGAIN) return error;
    pollfd room{socket, POLLOUT, 0};
    ::poll(&room, 1, kPatience);
  }
}
int tell(int socket, CallKind kind, uint64_t argument = 0, std::string_view text = {}) {
  return tell(socket, Call{static_cast<uint32_t>(kind), 1, argument}, text);
}

// `head.error` is that of the sockets, too.
Packet<Answer> ask(int socket, CallKind kind, uint64_t argument = 0, std::string_view text = {},
                   int descriptor = -1) {
  static uint32_t id = 0;
  Packet<Answer> answer;
  int error = tell(socket, Call{static_cast<uint32_t>(kind), ++id, argument}, text, descriptor);
  if (error == 0) error = wait_readable(socket) ? warden::receive(socket, answer) : ETIMEDOUT;
  if (error == 0 && answer.head.id != id) error = EBADMSG;
  if (error != 0) answer.head.error = error;
  return answer;
}

Packet<warden::News> next_news(int socket) {
  Packet<warden::News> news;
  if (!wait_readable(socket) || warden::receive(socket, news) != 0) news.head.kind = 0;
  return news;
}

[[noreturn]] void stay() {
  for (;;) ::pause();
}

struct Random {
  std::mt19937 engine;
  uint32_t operator()() { return static_cast<uint32_t>(engine()); }
  uint64_t wide() { return uint64_t{(*this)()} << 32 | (*this)(); }
};

// As a random machine sends them: most make sense.
Call random_call(Random& random) {
  const auto upto = [&](uint32_t most) { return random() % (most + 1); };
  constexpr std::array kHarmless{CallKind::kStopNetworks, CallKind::kNextLog,   CallKind::kConnectVsock,
                                 CallKind::kEnding,       CallKind::kSuspended, CallKind::kSealKernels,
                                 CallKind::kEnded};
  if (upto(2000) == 0) return {random(), random(), random.wide()};
  if (upto(2000) == 0) return {upto(15), random(), upto(3)};
  return {static_cast<uint32_t>(kHarmless[upto(kHarmless.size() - 1)]), random(), upto(1)};
}

std::string random_text(Random& random, size_t most) {
  std::string text(random() % (most + 1), 0);
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

// --- the warden ---------------------------------------------------------------------------------------

size_t open_descriptors() {
  return static_cast<size_t>(
      std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator()));
}

size_t resident_kib() {
  std::ifstream file("/proc/self/statm");
  size_t size = 0, resident = 0;
  file >> size >> resident;
  return resident * static_cast<size_t>(::sysconf(_SC_PAGESIZE)) / 1024;
}

// A sanitizer keeps what was freed for a while.
void expect_resident_below(size_t kib) {
  if (jail::kConfines) {
    EXPECT_LT(resident_kib(), kib);
  }
}

std::string content(const fs::path& file) {
  std::ifstream stream(file);
  return {std::istreambuf_iterator<char>(stream), {}};
}

class WardenTest : public testing::Test {
 protected:
  using Body = std::function<int(Ends)>;

  void SetUp() override {
    std::string pattern = fs::temp_directory_path() / "snug-warden-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    fs::create_directory(folder_ / "machines");
    // Thousands of machines end badly.
    ASSERT_TRUE(log_open(LogLevel::kWarn, folder_ / "log"));
    ::pthread_sigmask(SIG_SETMASK, nullptr, &mask_);
    // Whoever started the tests may have had them ignored (nohup).
    for (const int number : {SIGTERM, SIGINT, SIGHUP}) ::signal(number, SIG_DFL);
    loop_ = *EventLoop::create();
    directory_.emplace(*VmDirectory::create("m", Keep::kYes, {folder_ / "machines"}));
    duties_.directory = &*directory_;
  }
  void TearDown() override {
    ends_.vsock.reset();
    directory_.reset();
    (void)log_open(LogLevel::kWarn);
    fs::remove_all(folder_);
    ::pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
  }

  void give_vsock() { ends_.vsock = *VsockHub::create(*loop_, folder_ / "vsock"); }
  // One of passt, one of a tap.
  void give_networks() {
    ends_.nics.resize(2);
    ends_.nics[0].mac = MacAddress{2, 0, 0, 0, 0, 1};
    ends_.nics[kIndexOfTap].mode = NetMode::kTap;
    ends_.taps.emplace(kIndexOfTap, Tap());
  }

  std::unique_ptr<Warden> start(const Body& body) {
    std::array<int, 2> calls{};
    std::array<int, 2> news{};
    constexpr int kType = SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK;
    EXPECT_EQ(::socketpair(AF_UNIX, kType, 0, calls.data()), 0);
    EXPECT_EQ(::socketpair(AF_UNIX, kType, 0, news.data()), 0);
    // Children hear what this program is told.
    SignalWatch::block(SignalWatch::of_a_run(false));
    auto split = jail::split(jail::Confinement::kNone);
    if (!split) return nullptr;
    if (split->child == 0) {
      ::close(calls[0]);
      ::close(news[0]);
      (void)jail::end_with_parent(*split);
      ::_exit(body({calls[1], news[1]}));
    }
    ::close(calls[1]);
    ::close(news[1]);
    auto warden = Warden::create({split->child, std::move(split->process), std::move(split->lifeline),
                                  UniqueFd(calls[0]), UniqueFd(news[0])},
                                 {ends_,
                                  duties_.directory,
                                  nullptr,
                                  false,
                                  duties_.started,
                                  duties_.ending,
                                  duties_.killed_for_memory,
                                  {}});
    EXPECT_TRUE(warden);
    return std::move(*warden);
  }
  Result<MachineEnd> run(const Body& body) { return start(body)->run(); }
  // Of a machine whose set-up does not fail.
  MachineEnd end_of(const Body& body) {
    auto end = run(body);
    if (end) return *end;
    ADD_FAILURE() << end.error().text();
    return {};
  }
  // Of one that has found nothing wrong.
  void expect_fine(const Body& body) {
    EXPECT_EQ(end_of(body).message, "the machine's process ended with status 0");
  }

  fs::path machine() const { return directory_->path(); }

  struct {
    const VmDirectory* directory = nullptr;
    std::function<void()> started;
    std::function<void(const TimeLimit&)> ending;
    std::function<bool()> killed_for_memory;
  } duties_;
  fs::path folder_;
  sigset_t mask_{};
  std::unique_ptr<EventLoop> loop_;  // of the ends, which only the machine's process would run
  HostEnds ends_;
  std::optional<VmDirectory> directory_;
};

// --- packets ------------------------------------------------------------------------------------------

TEST_F(WardenTest, PacketsOfOddSizesEndTheMachine) {
  for (const size_t size :
       {size_t{0}, size_t{1}, sizeof(Call) - 1, sizeof(Call) + warden::kTextMax + 1, size_t{100'000}}) {
    const MachineEnd end = end_of([size](Ends ends) {
      const std::vector<char> bytes(size, 8);
      ::send(ends.calls, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      stay();
      return 0;
    });
    EXPECT_EQ(end.message, "the machine's process sends what makes no sense") << size;
    EXPECT_EQ(end.exit_status, kStatusFailure);
  }
}

TEST_F(WardenTest, TheLongestTextIsTaken) {
  const MachineEnd end = end_of([](Ends ends) {
    return ask(ends.calls, CallKind::kEnded, 3, std::string(warden::kTextMax, 'x')).head.error;
  });
  EXPECT_EQ(end.exit_status, 3);
  EXPECT_EQ(end.message, std::string(warden::kTextMax, 'x'));
}

TEST_F(WardenTest, WhatThereIsNotEndsTheMachine) {
  constexpr uint64_t kHuge = ~uint64_t{0};
  constexpr uint64_t k33Bits = uint64_t{1} << 32;
  struct Case {
    std::vector<CallKind> before;
    uint32_t kind;
    uint64_t argument;
  };
  std::vector<Case> cases;
  const auto add = [&](CallKind kind, std::initializer_list<uint64_t> arguments,
                       std::vector<CallKind> before = {}) {
    for (const uint64_t argument : arguments)
      cases.push_back({before, static_cast<uint32_t>(kind), argument});
  };
  constexpr auto kAfterLast = static_cast<uint32_t>(CallKind::kTakeOver) + 1;
  for (const uint32_t kind : {0U, kAfterLast, 255U, 0x80000001U, ~0U}) cases.push_back({{}, kind, 0});
  add(CallKind::kConnectVsock, {k33Bits, k33Bits + 1, kHuge});
  add(CallKind::kStartNetwork, {kIndexOfTap, 2, 255, k33Bits, kHuge});
  add(CallKind::kGiveUpNetwork, {0, kIndexOfTap, 2, k33Bits, kHuge});
  add(CallKind::kNextLog, {2, 3, k33Bits, k33Bits + 1, kHuge});
  for (const CallKind kernel : {CallKind::kBeginKernel, CallKind::kKeepKernel}) {
    add(kernel, {0, kHuge}, {CallKind::kSealKernels});
    add(kernel, {0, kHuge}, {CallKind::kStarted});
  }
  add(CallKind::kStarted, {0, 1}, {CallKind::kStarted});
  add(CallKind::kFailed, {0, 1}, {CallKind::kStarted});
  add(CallKind::kUpdateFile, {0, 2, 3, kHuge});
  for (const CallKind other :
       {CallKind::kLaunchUpdate, CallKind::kTakeState, CallKind::kTakeOver, CallKind::kKeptTemplate})
    add(other, {0, 1});
  give_vsock();
  give_networks();
  for (const Case& one : cases) {
    const MachineEnd end = end_of([&one](Ends ends) {
      for (const CallKind kind : one.before)
        if (ask(ends.calls, kind).head.error != 0) return 1;
      tell(ends.calls, {one.kind, 9, one.argument}, "text");
      stay();
      return 0;
    });
    EXPECT_EQ(end.message, fmt::format("the machine's process asks for what there is not ({}, {})", one.kind,
                                       one.argument));
    EXPECT_EQ(end.exit_status, kStatusFailure);
  }
}

TEST_F(WardenTest, WhatAMachineDoesNotHaveCannotBeAskedFor) {
  duties_.directory = nullptr;
  for (const CallKind kind : {CallKind::kConnectVsock, CallKind::kStartNetwork, CallKind::kNextLog})
    EXPECT_THAT(end_of([kind](Ends ends) {
                  tell(ends.calls, kind);
                  stay();
                  return 0;
                }).message,
                HasSubstr("asks for what there is not"));
}

// Of one that cannot be updated, whatever it says.
TEST_F(WardenTest, AnUpdateThatIsNoneIsAnswered) {
  expect_fine([](Ends ends) {
    const auto refused = [&](CallKind kind, uint64_t argument, std::string_view why) {
      const auto answer = ask(ends.calls, kind, argument);
      return answer.head.error != 0 && answer.text.find(why) != std::string::npos;
    };
    if (!refused(CallKind::kBeginUpdate, 0, "cannot be updated")) return 1;
    if (!refused(CallKind::kHandOver, 0, "no other process")) return 2;
    if (ask(ends.calls, CallKind::kEndUpdate).head.error != 0) return 3;
    if (ask(ends.calls, CallKind::kForgetRam).head.error != 0) return 4;
    if (ask(ends.calls, CallKind::kStarted).head.error != 0) return 5;
    return refused(CallKind::kBeginUpdate, 1, "cannot be updated") ? 0 : 6;
  });
}

TEST_F(WardenTest, DescriptorsAreNotKept) {
  constexpr int kPackets = 10'000;
  size_t most = 0;
  duties_.ending = [&](const TimeLimit&) { most = std::max(most, open_descriptors()); };
  const size_t before = open_descriptors();
  expect_fine([](Ends ends) {
    for (int i = 0; i < kPackets; ++i) {
      const CallKind kind = i % 100 == 0 ? CallKind::kEnding : CallKind::kStopNetworks;
      if (ask(ends.calls, kind, 0, i % 3 == 0 ? "text" : "", STDERR_FILENO).head.error != 0) return 1;
    }
    return 0;
  });
  EXPECT_EQ(open_descriptors(), before);
  // Those of the warden itself.
  EXPECT_GT(most, before);
  EXPECT_LT(most, before + 20);
}

TEST_F(WardenTest, ManyDescriptorsInOnePacketAreNotKeptEither) {
  const size_t before = open_descriptors();
  const MachineEnd end = end_of([](Ends ends) {
    constexpr size_t kMany = 250;
    std::array<char, CMSG_SPACE(kMany * sizeof(int))> control{};
    Call call{static_cast<uint32_t>(CallKind::kStopNetworks), 1, 0};
    iovec part{&call, sizeof call};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(kMany * sizeof(int));
    for (size_t i = 0; i < kMany; ++i)
      std::memcpy(CMSG_DATA(head) + i * sizeof(int), &ends.news, sizeof(int));
    for (int i = 0; i < 100; ++i)
      if (::sendmsg(ends.calls, &message, MSG_NOSIGNAL) < 0 && errno != EAGAIN) return errno;
    return 0;
  });
  EXPECT_EQ(end.exit_status, kStatusFailure);
  EXPECT_EQ(open_descriptors(), before);
}

// --- floods -------------------------------------------------------------------------------------------

TEST_F(WardenTest, AnswersThatAreNotTakenEndTheMachine) {
  give_vsock();
  for (const auto& [kind, argument] :
       {std::pair{CallKind::kStopNetworks, 0}, std::pair{CallKind::kNextLog, 1},
        std::pair{CallKind::kConnectVsock, 7}, std::pair{CallKind::kBeginKernel, 0},
        std::pair{CallKind::kEnding, 1}}) {
    const size_t before = resident_kib();
    const size_t descriptors = open_descriptors();
    const MachineEnd end = end_of([&, kind = kind, argument = argument](Ends ends) {
      while (tell(ends.calls, kind, static_cast<uint64_t>(argument), std::string(1000, 'x')) == 0) continue;
      stay();
      return 0;
    });
    EXPECT_THAT(end.message, StartsWith("the machine's process does not take its answers"))
        << static_cast<int>(kind);
    EXPECT_EQ(end.exit_status, kStatusFailure);
    EXPECT_EQ(open_descriptors(), descriptors);
    expect_resident_below(before + 8 * 1024);
  }
}

TEST_F(WardenTest, NewsThatAreNotTakenEndTheMachine) {
  const MachineEnd end = end_of([](Ends) {
    for (;;) {
      if (::kill(::getppid(), SIGCONT) != 0) return 1;
      ::usleep(10);
    }
  });
  EXPECT_EQ(end.message, "the machine's process does not listen");
}

TEST_F(WardenTest, AFloodWithAnswersDoesNotKeepSignalsOut) {
  expect_fine([](Ends ends) {
    ::kill(::getppid(), SIGTERM);
    for (int i = 0; i < 100'000; ++i) {
      if (ask(ends.calls, CallKind::kStopNetworks).head.error != 0) return 1;
      Packet<warden::News> news;
      if (warden::receive(ends.news, news) == 0) return news.head.number == SIGTERM ? 0 : 2;
    }
    return 3;
  });
}

TEST_F(WardenTest, ThousandsOfRandomPackets) {
  give_vsock();
  give_networks();
  const size_t descriptors = open_descriptors();
  size_t most = 0;
  duties_.ending = [&](const TimeLimit&) { most = std::max(most, open_descriptors()); };
  auto* sent = static_cast<std::atomic<int>*>(
      ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(sent, MAP_FAILED);
  const size_t before = resident_kib();
  int machines = 0;
  for (; *sent < 100'000 && machines < 20'000; ++machines) {
    const auto end = run([&](Ends ends) {
      Random random{std::mt19937(static_cast<uint32_t>(machines))};
      while (*sent < 100'000) {
        Packet<Answer> answer;
        if (tell(ends.calls, random_call(random), random_text(random, 30), random() % 8 == 0 ? 2 : -1) != 0)
          break;
        ++*sent;
        // Some take no answers for a while.
        if (random() % 4 != 0)
          while (warden::receive(ends.calls, answer) == 0) continue;
      }
      return 0;
    });
    ASSERT_TRUE(!end || end->exit_status >= 0);
    ASSERT_EQ(open_descriptors(), descriptors);
  }
  EXPECT_EQ(*sent, 100'000);
  EXPECT_GT(machines, 10) << "few packets end a machine";
  EXPECT_LT(most, descriptors + 20);
  expect_resident_below(before + 16 * 1024);
  ::munmap(sent, 4096);
}

// Without sockets between: what the sockets would refuse is looked at as well.
TEST_F(WardenTest, AHundredThousandRandomCalls) {
  give_vsock();
  Random random{std::mt19937(1)};
  const auto warden = start([](Ends ends) {
    Packet<Answer> answer;
    while (wait_readable(ends.calls))
      if (const int error = warden::receive(ends.calls, answer); error == EPIPE) break;
    return 0;
  });
  int fine = 0;
  for (int i = 0; i < 100'000; ++i) {
    const Call call{random() % 2 == 0 ? random() % 16 : random(), random(),
                    random() % 2 == 0 ? random() % 4 : random.wide()};
    if (warden->answer(call, random_text(random, 200))) ++fine;
  }
  EXPECT_GT(fine, 10'000);
}

// --- ends ---------------------------------------------------------------------------------------------

TEST_F(WardenTest, AnEndWithoutWords) {
  for (const int status : {0, 1, 125, 255}) {
    const MachineEnd end = end_of([status](Ends) { return status; });
    EXPECT_EQ(end.exit_status, kStatusFailure);
    EXPECT_EQ(end.message, fmt::format("the machine's process ended with status {}", status));
    EXPECT_THAT(content(machine() / "exit.json"), HasSubstr(end.message));
  }
}

// Not by a handler of the sanitizers, and with no core.
int dies_by(int signal_number) {
  const rlimit none{};
  ::setrlimit(RLIMIT_CORE, &none);
  ::signal(signal_number, SIG_DFL);
  ::kill(::getpid(), signal_number);
  return 0;
}

TEST_F(WardenTest, AnEndBySignal) {
  for (const auto& [number, name] : {std::pair{SIGKILL, "SIGKILL"}, std::pair{SIGSEGV, "SIGSEGV"},
                                     std::pair{SIGSYS, "SIGSYS"}, std::pair{SIGABRT, "SIGABRT"}}) {
    const MachineEnd end = end_of([number = number](Ends) { return dies_by(number); });
    EXPECT_EQ(end.exit_status, 128 + number);
    EXPECT_EQ(end.message, fmt::format("the machine's process was killed by {}", name));
  }
}

TEST_F(WardenTest, AnEndForWantOfMemory) {
  bool for_memory = true;
  duties_.killed_for_memory = [&for_memory] { return for_memory; };
  const auto killed_by = [this](int number) { return end_of([number](Ends) { return dies_by(number); }); };
  const MachineEnd end = killed_by(SIGKILL);
  EXPECT_EQ(end.exit_status, 137);
  EXPECT_THAT(end.message, HasSubstr("all that limits.memory gives it"));
  EXPECT_THAT(content(machine() / "exit.json"), HasSubstr("limits.memory"));
  // Another signal is not the kernel's; and without a word of the kernel's nor is this one.
  EXPECT_EQ(killed_by(SIGSEGV).message, "the machine's process was killed by SIGSEGV");
  for_memory = false;
  EXPECT_EQ(killed_by(SIGKILL).message, "the machine's process was killed by SIGKILL");
}

// Whether or not the warden has come to answer before.
TEST_F(WardenTest, ACallAndThenAnEndBySignal) {
  for (int round = 0; round < 80; ++round) {
    const MachineEnd end = end_of([round](Ends ends) {
      for (int i = 0; i <= round % 40; ++i) tell(ends.calls, CallKind::kStopNetworks);
      ::kill(::getpid(), SIGKILL);
      return 0;
    });
    ASSERT_EQ(end.message, "the machine's process was killed by SIGKILL") << round;
    ASSERT_EQ(end.exit_status, 137);
  }
}

TEST_F(WardenTest, LastWordsAreHeardAfterTheEnd) {
  for (int round = 0; round < 40; ++round) {
    const MachineEnd end = end_of([](Ends ends) {
      tell(ends.calls, CallKind::kStopNetworks);  // with an answer that nobody reads
      tell(ends.calls, CallKind::kEnded, 7, "last words");
      ::kill(::getpid(), SIGKILL);
      return 0;
    });
    ASSERT_EQ(end.message, "last words") << round;
    ASSERT_EQ(end.exit_status, 7);
  }
  EXPECT_THAT(content(machine() / "exit.json"), HasSubstr("last words"));
}

TEST_F(WardenTest, TheFirstWordsCount) {
  const MachineEnd end = end_of([](Ends ends) {
    ask(ends.calls, CallKind::kEnded, 0x1ff, "first");
    ask(ends.calls, CallKind::kEnded, 8, "second");
    return 9;
  });
  EXPECT_EQ(end.message, "first");
  EXPECT_EQ(end.exit_status, 0xff);
  EXPECT_THAT(content(machine() / "exit.json"), HasSubstr("first"));
}

TEST_F(WardenTest, WordsAreOneLineThatDoesNothingToATerminal) {
  const std::string text = "\x1b[2Ja\nb\r\x7f\xff\x01" + std::string(1, '\0') + "c";
  const MachineEnd end =
      end_of([&](Ends ends) { return ask(ends.calls, CallKind::kEnded, 1, text).head.error; });
  EXPECT_EQ(end.message, " [2Ja b  \xff  c");
  EXPECT_TRUE(fs::exists(machine() / "exit.json"));
  const auto failed = run([](Ends ends) {
    return ask(ends.calls, CallKind::kFailed, 0,
               warden::error_text({"a\x1b"
                                   "b",
                                   "c\nd"}))
        .head.error;
  });
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "a b");
  EXPECT_EQ(failed.error().hint, "c d");
}

TEST_F(WardenTest, SetUpThatFailed) {
  const auto failed = run([](Ends ends) {
    return ask(ends.calls, CallKind::kFailed, 0, warden::error_text({"no such thing", "make one"}))
        .head.error;
  });
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().text(), "no such thing; make one");
  EXPECT_FALSE(fs::exists(machine() / "exit.json"));
}

TEST_F(WardenTest, HalfClosedSockets) {
  for (const int half : {SHUT_RD, SHUT_WR, SHUT_RDWR}) {
    EXPECT_EQ(end_of([half](Ends ends) {
                ::shutdown(ends.calls, half);
                ::shutdown(ends.news, half);
                ::kill(::getppid(), SIGCONT);
                tell(ends.calls, CallKind::kStopNetworks);
                tell(ends.calls, CallKind::kConnectVsock, ~uint64_t{0});
                ::usleep(1000);
                return half == SHUT_RD ? 0 : 5;
              }).exit_status,
              kStatusFailure)
        << half;
  }
  const MachineEnd end = end_of([](Ends ends) {
    ::close(ends.calls);
    ::close(ends.news);
    ::usleep(1000);
    return 6;
  });
  EXPECT_EQ(end.message, "the machine's process ended with status 6");
}

// One that has been waited for has no number any more that a signal could be sent to.
TEST_F(WardenTest, NobodyElseIsSignalledAfterTheEnd) {
  // In a PID namespace, where "all processes" are few.
  auto split = jail::split(jail::Confinement::kNamespaces);
  ASSERT_TRUE(split);
  if (split->child == 0) {
    if (split->namespaces == jail::Namespaces::kNone) ::_exit(77);
    const pid_t bystander = ::fork();
    if (bystander == 0) stay();
    for (int round = 0; round < 50; ++round)
      run([](Ends ends) {
        for (int i = 0; i < 100; ++i) tell(ends.calls, {99, 1, 0});
        return 0;
      });
    ::_exit(::waitpid(bystander, nullptr, WNOHANG) == 0 ? 0 : 1);
  }
  int status = 0;
  ::waitpid(split->child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << "no PID namespaces here";
  EXPECT_EQ(status, 0);
}

TEST_F(WardenTest, AMachineEndsWithItsWarden) {
  pid_t machine = 0;
  {
    auto warden = start([](Ends) {
      stay();
      return 0;
    });
    std::ifstream("/proc/self/task/" + std::to_string(::getpid()) + "/children") >> machine;
    ASSERT_GT(machine, 0);
  }
  EXPECT_EQ(::kill(machine, 0), -1);
}

// --- what it is there for -----------------------------------------------------------------------------

TEST_F(WardenTest, StartAndEnding) {
  int started = 0;
  std::vector<TimeLimit> graces;
  duties_.started = [&] { ++started; };
  duties_.ending = [&](const TimeLimit& grace) { graces.push_back(grace); };
  expect_fine([](Ends ends) {
    const auto answer = ask(ends.calls, CallKind::kStarted);
    if (answer.head.error != 0 || answer.head.value == 0) return 1;
    for (const uint64_t grace : {uint64_t{0}, uint64_t{90'000}, warden::kLongest - 1, warden::kLongest,
                                 uint64_t{INT64_MAX}, warden::kForever})
      if (ask(ends.calls, CallKind::kEnding, grace).head.error != 0) return 2;
    return 0;
  });
  EXPECT_EQ(started, 1);
  using std::chrono::milliseconds;
  EXPECT_THAT(graces,
              testing::ElementsAre(milliseconds(0), milliseconds(90'000), milliseconds(warden::kLongest - 1),
                                   std::nullopt, std::nullopt, std::nullopt));
}

TEST_F(WardenTest, TheNextLogIsTheOneThatWasAskedFor) {
  for (const auto& [kind, file] : {std::pair{warden::LogKind::kConsole, "console.log"},
                                   std::pair{warden::LogKind::kOutput, "output.log"}}) {
    std::ofstream(machine() / file) << "full";
    expect_fine([kind = kind](Ends ends) {
      const auto answer = ask(ends.calls, CallKind::kNextLog, static_cast<uint64_t>(kind));
      if (!answer.descriptor) return 1;
      return ::write(answer.descriptor.get(), "next", 4) == 4 ? 0 : 2;
    });
    EXPECT_EQ(content(machine() / file), "next");
    EXPECT_EQ(content(machine() / (std::string(file) + ".1")), "full");
  }
}

TEST_F(WardenTest, VsockLeadsToTheSocketOfThePortOnly) {
  give_vsock();
  const auto listen_at = [&](const char* name) {
    UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    (folder_ / name).string().copy(static_cast<char*>(address.sun_path), sizeof address.sun_path - 1);
    EXPECT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(socket.get(), 5), 0);
    return socket;
  };
  const UniqueFd right = listen_at("vsock_4294967295");
  const UniqueFd wrong = listen_at("other_5");
  expect_fine([](Ends ends) {
    const auto there = ask(ends.calls, CallKind::kConnectVsock, UINT32_MAX);
    if (there.head.error != 0 || !there.descriptor) return 1;
    if (::write(there.descriptor.get(), "hello", 5) != 5) return 2;
    const auto none = ask(ends.calls, CallKind::kConnectVsock, 5);
    return none.head.error == ENOENT && !none.descriptor ? 0 : 3;
  });
  const UniqueFd stream(::accept(right.get(), nullptr, nullptr));
  std::array<char, 6> read{};
  EXPECT_EQ(::read(stream.get(), read.data(), read.size()), 5);
  EXPECT_STREQ(read.data(), "hello");
}

TEST_F(WardenTest, AKernelIsKeptBeforeTheGuestRuns) {
  ends_.kernel_store = *KernelStore::open(folder_ / "kernels");
  const UniqueFd kernel = *open_file("/usr/bin/env", O_RDONLY);
  ends_.kernel_store.choose(kernel.get());
  ASSERT_TRUE(ends_.kernel_store.chosen());
  expect_fine([](Ends ends) {
    if (ask(ends.calls, CallKind::kKeepKernel).descriptor) return 1;
    for (int i = 0; i < 3; ++i) {
      const auto begun = ask(ends.calls, CallKind::kBeginKernel);
      if (!begun.descriptor || ::write(begun.descriptor.get(), "kernel", 6) != 6) return 2;
    }
    const auto kept = ask(ends.calls, CallKind::kKeepKernel);
    std::array<char, 7> read{};
    if (!kept.descriptor || ::pread(kept.descriptor.get(), read.data(), 6, 0) != 6) return 3;
    if (::write(kept.descriptor.get(), "x", 1) >= 0) return 4;
    return ask(ends.calls, CallKind::kKeepKernel).text.empty() ? 5 : 0;
  });
  std::vector<fs::path> kept;
  for (const auto& entry : fs::directory_iterator(folder_ / "kernels")) kept.push_back(entry.path());
  ASSERT_EQ(kept.size(), 1U);
  EXPECT_EQ(content(kept.front()), "kernel");
}

TEST_F(WardenTest, SignalsArePassedOn) {
  expect_fine([](Ends ends) {
    for (const int number : {SIGTERM, SIGCONT, SIGHUP}) {
      if (::kill(::getppid(), number) != 0) return 1;
      const auto news = next_news(ends.news);
      if (news.head.kind != static_cast<uint32_t>(NewsKind::kSignal)) return 2;
      if (news.head.number != static_cast<uint32_t>(number) || news.descriptor) return 3;
    }
    return 0;
  });
}

TEST_F(WardenTest, NobodyStopsUnasked) {
  expect_fine([](Ends ends) { return ask(ends.calls, CallKind::kSuspended).head.error; });
}

// A passt that is none, but answers, and is started anew when it has been given up.
TEST_F(WardenTest, Networks) {
  give_networks();
  std::ofstream(folder_ / "passt") << "#!/bin/sh\n"
                                      "echo $$ >> \"${0%/*}/pids\"\n"
                                      "dd bs=46 count=1 status=none <&3 >&3\n"
                                      "exec sleep 1000\n";
  fs::permissions(folder_ / "passt", fs::perms::owner_all);
  const std::string path = ::getenv("PATH");
  ::setenv("PATH", (folder_.string() + ":" + path).c_str(), 1);
  expect_fine([](Ends ends) {
    const auto first = ask(ends.calls, CallKind::kStartNetwork, 0);
    if (!first.descriptor) return 1;
    if (ask(ends.calls, CallKind::kGiveUpNetwork, 0).head.error != 0) return 2;
    const auto lost = next_news(ends.news);
    if (lost.head.kind != static_cast<uint32_t>(NewsKind::kNetworkLost) || lost.head.number != 0) return 3;
    const auto again = next_news(ends.news);
    if (again.head.kind != static_cast<uint32_t>(NewsKind::kNetworkConnected) || !again.descriptor) return 4;
    return ask(ends.calls, CallKind::kStopNetworks).head.error;
  });
  ::setenv("PATH", path.c_str(), 1);
  std::ifstream pids(folder_ / "pids");
  int count = 0;
  for (pid_t pid = 0; pids >> pid; ++count) EXPECT_EQ(::kill(pid, 0), -1) << "a passt is left";
  EXPECT_GE(count, 1);
  EXPECT_LE(count, 2);
}

TEST_F(WardenTest, ANetworkThatCannotBeIsSaid) {
  give_networks();
  const std::string path = ::getenv("PATH");
  ::setenv("PATH", folder_.c_str(), 1);
  expect_fine([](Ends ends) {
    const auto none = ask(ends.calls, CallKind::kStartNetwork, 0);
    return none.head.error == EIO && !none.descriptor &&
                   warden::error_of(none.text).message.find("passt") == 0
               ? 0
               : 1;
  });
  ::setenv("PATH", path.c_str(), 1);
}

}  // namespace
}  // namespace snug
