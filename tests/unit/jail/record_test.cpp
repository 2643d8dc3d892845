// A confined process that records its calls behaves as one that does not.
#include "vmm/jail/record.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <atomic>
#include <cerrno>
#include <sstream>
#include <vector>

#include "tests/unit/jail/confined_process.h"
#include "tests/unit/jail/interpreter.h"
#include "vmm/jail/thread_rules.h"

namespace snug::jail {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

// --- the filter ---------------------------------------------------------------------------------------

constexpr RecordedCalls kRecorded{.made_at = 0x7f0123456789, .returned_at = 0x7f01234567ab, .first = 7};
constexpr pid_t kProcess = 4711;

const std::vector<CallRule> kRules{
    {SYS_ioctl, "two requests", {{one_of(1, {10, 20})}}},
    {SYS_read, "whatever it is", {}},
    {SYS_mremap, "never", {}, ENOMEM},
    {SYS_clone, "threads", {{is64(0, 5)}}},
};

uint32_t answer_at(uint64_t place, long number, std::array<uint64_t, 6> arguments = {}) {
  const auto program = build_recorded_filter(kRules, kProcess, kRecorded).value();
  seccomp_data call = call_of(number, arguments);
  call.instruction_pointer = place;
  return evaluate(program, call);
}

TEST(RecordedFilter, NumbersEachValue) {
  EXPECT_EQ(answer_at(0, SYS_ioctl, {0, 10}), SECCOMP_RET_TRAP | 7);
  EXPECT_EQ(answer_at(0, SYS_ioctl, {0, 20}), SECCOMP_RET_TRAP | 8);
  EXPECT_EQ(answer_at(0, SYS_ioctl, {0, 30}), SECCOMP_RET_TRAP);
  EXPECT_EQ(answer_at(0, SYS_read), SECCOMP_RET_TRAP | 9);
  EXPECT_EQ(answer_at(0, SYS_mremap), SECCOMP_RET_TRAP | 10);
  EXPECT_EQ(answer_at(0, SYS_clone, {5}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(answer_at(0, SYS_clone, {6}), SECCOMP_RET_TRAP);
  EXPECT_EQ(answer_at(0, SYS_write), SECCOMP_RET_TRAP);
  EXPECT_EQ(answer_at(0, SYS_rt_sigreturn), SECCOMP_RET_TRAP);
}

TEST(RecordedFilter, IsNoMilderWhereCallsAreMade) {
  const auto plain = build_filter(kRules, kProcess).value();
  for (const long number : {SYS_ioctl, SYS_read, SYS_mremap, SYS_clone, SYS_write, SYS_rt_sigreturn})
    for (const uint64_t value : {0, 5, 6, 10, 20, 30})
      EXPECT_EQ(answer_at(kRecorded.made_at, number, {value, value}),
                evaluate(plain, call_of(number, {value, value})))
          << number << ' ' << value;
  EXPECT_EQ(answer_at(kRecorded.returned_at, SYS_rt_sigreturn), SECCOMP_RET_ALLOW);
  EXPECT_EQ(answer_at(kRecorded.returned_at, SYS_read), SECCOMP_RET_TRAP);
  // Half of an address is none.
  EXPECT_EQ(answer_at(kRecorded.made_at ^ (1UL << 40), SYS_read), SECCOMP_RET_TRAP | 9);
  EXPECT_EQ(answer_at(kRecorded.made_at ^ 1, SYS_read), SECCOMP_RET_TRAP | 9);
}

TEST(RecordedFilter, FitsForEveryKind) {
  size_t entries = 1;
  for (size_t kind = 0; kind < kThreadKinds; ++kind) {
    const auto rules = thread_rules(static_cast<ThreadKind>(kind));
    EXPECT_TRUE(build_recorded_filter(rules, kProcess, kRecorded));
    entries += entries_of(rules).size();
  }
  EXPECT_LT(entries, 1024);
}

// --- a process that records ---------------------------------------------------------------------------

struct Recorded {
  Ended ended;
  std::vector<std::string> lines;
};

Recorded recorded(ThreadKind kind, const std::function<int()>& work) {
  FILE* file = std::tmpfile();
  ::fcntl(::fileno(file), F_SETFL, O_APPEND);
  Recorded result;
  result.ended = in_a_process([&](int say) {
    if (!watch_violations(say) || !record_calls(::fileno(file))) return 102;
    return on_thread(kind, work);
  });
  std::rewind(file);
  std::array<char, 200> line;
  while (std::fgets(line.data(), line.size(), file) != nullptr) {
    result.lines.emplace_back(line.data());
    result.lines.back().pop_back();
  }
  std::fclose(file);
  return result;
}

class Record : public testing::Test {
 protected:
  void SetUp() override {
    if (!kConfines) GTEST_SKIP() << "a sanitizer makes calls of its own";
  }
};

constexpr std::array kAll{ThreadKind::kVcpu, ThreadKind::kLoop, ThreadKind::kDevice, ThreadKind::kShare,
                          ThreadKind::kBuilder};

TEST_F(Record, WritesWhatWasCalledOnce) {
  const Recorded loop = recorded(ThreadKind::kLoop, [] {
    winsize size{};
    for (int i = 0; i < 3; ++i) ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size);
    return ::socketpair(AF_UNIX, SOCK_STREAM, 0, nullptr) < 0 ? 0 : 1;
  });
  EXPECT_EQ(loop.ended.exit_status(), 0) << loop.ended.said;
  EXPECT_THAT(loop.lines, testing::UnorderedElementsAre("loop ioctl 1=0x5413", "loop socketpair 0=0x1",
                                                        "loop exit_group"));
}

TEST_F(Record, ResultsAndErrorsAreThoseOfTheCall) {
  for (const ThreadKind kind : kAll) {
    const Recorded seen = recorded(kind, [] {
      std::array<char, 6> text{};
      if (::read(-1, text.data(), 1) != -1 || errno != EBADF) return 1;
      if (::write(STDERR_FILENO, "hello", 5) != 5) return 2;
      void* memory = ::mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (memory == MAP_FAILED) return 3;
      static_cast<char*>(memory)[8191] = 1;
      if (::mmap(memory, 4096, PROT_READ, MAP_PRIVATE, -1, 0) != MAP_FAILED || errno != EBADF) return 4;
      if (::mremap(memory, 8192, 1 << 20, MREMAP_MAYMOVE) != MAP_FAILED || errno != ENOMEM) return 5;
      if (::munmap(memory, 8192) != 0) return 6;
      return ::close(-1) == -1 && errno == EBADF ? 0 : 7;
    });
    EXPECT_EQ(seen.ended.exit_status(), 0) << name(kind) << seen.ended.said;
    EXPECT_THAT(seen.lines, Contains(HasSubstr(" mremap"))) << name(kind);
  }
}

TEST_F(Record, SignalMasksAreTheThreads) {
  const Recorded seen = recorded(ThreadKind::kVcpu, [] {
    sigset_t all;
    sigset_t before;
    sigset_t now;
    ::sigfillset(&all);
    if (::pthread_sigmask(SIG_SETMASK, &all, &before) != 0) return 1;
    // It lasts beyond the call, and SIGSYS is spared.
    if (::pthread_sigmask(SIG_SETMASK, nullptr, &now) != 0) return 2;
    if (::sigismember(&now, SIGTERM) != 1 || ::sigismember(&now, SIGSYS) != 0) return 3;
    ::close(-1);
    if (::pthread_sigmask(SIG_SETMASK, &before, nullptr) != 0) return 4;
    if (::pthread_sigmask(SIG_SETMASK, nullptr, &now) != 0) return 5;
    return ::sigismember(&now, SIGTERM) == ::sigismember(&before, SIGTERM) ? 0 : 6;
  });
  EXPECT_EQ(seen.ended.exit_status(), 0) << seen.ended.said;
}

std::atomic<int> kicks;

TEST_F(Record, ACallThatWaitsIsInterruptedByAKick) {
  FILE* file = std::tmpfile();
  const Ended ended = in_a_process([&](int say) {
    if (!watch_violations(say) || !record_calls(::fileno(file))) return 102;
    struct sigaction action {};
    action.sa_handler = [](int) { ++kicks; };
    ::sigaction(SIGRTMIN, &action, nullptr);
    std::array<int, 2> pipe{};
    if (::pipe(pipe.data()) != 0) return 103;
    std::atomic<bool> interrupted{false};
    std::thread other([&] {
      (void)confine_thread(ThreadKind::kVcpu);
      char byte = 0;
      bool each = true;
      for (int i = 0; i < 2; ++i) each = each && ::read(pipe[0], &byte, 1) == -1 && errno == EINTR;
      interrupted = each;
    });
    const int nothing = ::epoll_create1(0);
    return on_thread(ThreadKind::kBuilder, [&] {
      // A kick may be early: it is repeated.
      for (int i = 0; i < 10'000 && !interrupted; ++i) {
        ::pthread_kill(other.native_handle(), SIGRTMIN);
        epoll_event event{};
        ::epoll_wait(nothing, &event, 1, 1);
      }
      other.join();
      return interrupted && kicks >= 2 ? 0 : 1;
    });
  });
  std::fclose(file);
  EXPECT_EQ(ended.exit_status(), 0) << ended.said << " signal " << ended.signal();
}

TEST_F(Record, ABuilderStartsThreads) {
  for (const ThreadKind kind : {ThreadKind::kVcpu, ThreadKind::kDevice}) {
    const Recorded seen = recorded(ThreadKind::kBuilder, [&] {
      for (int i = 0; i < 20; ++i)
        std::thread([&] {
          if (!confine_thread(kind)) ::_exit(103);
          std::vector<char>(1 << 20).back() = 1;
        }).join();
      return 0;
    });
    EXPECT_EQ(seen.ended.exit_status(), 0) << name(kind) << seen.ended.said << seen.ended.signal();
    EXPECT_THAT(seen.lines, Contains("builder clone 0=0x3d0f00"));
    EXPECT_THAT(seen.lines, Contains("builder clone3"));
    EXPECT_THAT(seen.lines, Contains(kind == ThreadKind::kVcpu ? "vcpu exit" : "device exit"));
  }
}

TEST_F(Record, WhatIsForbiddenEndsTheProcess) {
  for (const ThreadKind kind : kAll) {
    const Recorded seen = recorded(kind, [] { return ::chdir("/"); });
    EXPECT_EQ(seen.ended.exit_status(), 159) << name(kind);
    EXPECT_THAT(seen.ended.said, HasSubstr("chdir (80)"));
    // What was seen before is written all the same.
    EXPECT_THAT(seen.lines, Contains(HasSubstr(" exit_group")));
    EXPECT_THAT(seen.lines, Not(Contains(HasSubstr("chdir"))));
    const Recorded request = recorded(kind, [] { return ::ioctl(0, TIOCSTI, ""); });
    EXPECT_EQ(request.ended.exit_status(), 159) << name(kind);
  }
}

}  // namespace
}  // namespace snug::jail
