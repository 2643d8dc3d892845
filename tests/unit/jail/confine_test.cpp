// The kernel's own word on the filters: each case in a process of its own, which installs one.
#include "vmm/jail/confine.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/prctl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <mutex>
#include <set>
#include <thread>

#include "tests/unit/jail/confined_process.h"
#include "tests/unit/jail/traps.h"
#include "vmm/base/assertion.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/loop_thread.h"
#include "vmm/jail/call_names.h"
#include "vmm/jail/thread_rules.h"

namespace snug::jail {
namespace {

constexpr std::array kAll{ThreadKind::kVcpu, ThreadKind::kLoop, ThreadKind::kDevice, ThreadKind::kShare,
                          ThreadKind::kBuilder};

// --- calls that are trapped ---------------------------------------------------------------------------

class Confine : public testing::Test {
 protected:
  void SetUp() override {
    if (!kConfines) GTEST_SKIP() << "a sanitizer makes calls of its own";
  }
};

TEST_F(Confine, EveryCallWithoutARuleIsTrapped) {
  for (const ThreadKind kind : kAll) {
    std::vector<long> forbidden;
    std::set<long> known;
    for (const CallRule& rule : thread_rules(kind)) known.insert(rule.number);
    for (long number = 0; number < kHighest; ++number)
      if (!known.contains(number) && !kUnseen.contains(number)) forbidden.push_back(number);
    ASSERT_GE(forbidden.size(), 300);
    const Ended ended = in_a_process([&](int say) {
      watch_traps();
      return on_thread(kind, [&] {
        size_t trapped = 0;
        for (const long number : forbidden) {
          const bool seen = is_trapped({number, {-1UL, -1UL, -1UL, -1UL}});
          if (seen) ++trapped;
          if (!seen) (void)!::write(say, &number, sizeof number);
        }
        return trapped == forbidden.size() ? 0 : 1;
      });
    });
    EXPECT_EQ(ended.exit_status(), 0) << name(kind) << ": signal " << ended.signal();
    for (size_t at = 0; at + sizeof(long) <= ended.said.size(); at += sizeof(long)) {
      long number;
      std::memcpy(&number, ended.said.data() + at, sizeof number);
      ADD_FAILURE() << name(kind) << " made " << call_name(number) << " (" << number << ")";
    }
  }
}

TEST_F(Confine, CallsWithArgumentsThatDoNotFitAreTrapped) {
  constexpr unsigned long kKvm = 0xae;
  const std::vector<Call> calls{
      {SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS}},
      {SYS_mmap, {0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS}},
      {SYS_mprotect, {0, 4096, PROT_EXEC, 0}},
      {SYS_mprotect, {0, 4096, PROT_READ | PROT_EXEC, 0}},
      {SYS_ioctl, {0, TIOCSTI, 0, 0}},
      {SYS_ioctl, {0, TIOCSETD, 0, 0}},
      {SYS_ioctl, {0, _IOC(_IOC_READ | _IOC_WRITE, kKvm, 0xe0, 12), 0, 0}},  // KVM_CREATE_DEVICE
      {SYS_ioctl, {0, _IOC(_IOC_WRITE, kKvm, 0xa3, 104), 0, 0}},             // KVM_ENABLE_CAP
      {SYS_clone, {SIGCHLD, 0, 0, 0}},
      {SYS_clone, {CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0}},
      {SYS_clone, {CLONE_NEWUSER | SIGCHLD, 0, 0, 0}},
      {SYS_clone,
       {CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, 0, 0, 0}},
      {SYS_fcntl, {0, F_SETOWN, 1, 0}},
      {SYS_fcntl, {0, F_SETLEASE, 1, 0}},
      {SYS_fcntl, {0, F_SETPIPE_SZ, 4096, 0}},
      {SYS_socketpair, {AF_INET, SOCK_STREAM, 0, 0}},
      {SYS_socketpair, {AF_NETLINK, SOCK_RAW, 0, 0}},
      {SYS_prctl, {PR_SET_DUMPABLE, 1, 0, 0}},
      {SYS_prctl, {PR_SET_PTRACER, 1, 0, 0}},
      {SYS_madvise, {0, 4096, MADV_HWPOISON, 0}},
      {SYS_tgkill, {1, 1, SIGKILL, 0}},
      {SYS_tgkill, {static_cast<unsigned long>(::getppid()), 1, SIGABRT, 0}},
      {SYS_rt_sigaction, {SIGSYS, 0, 0, 8}},
      {SYS_newfstatat, {-100UL, 0, 0, 0}},
      {SYS_seccomp, {0, 0, 0, 0}},  // SECCOMP_SET_MODE_STRICT
      {SYS_seccomp, {1, 8, 0, 0}},  // a listener
  };
  for (const ThreadKind kind : kAll) {
    const Ended ended = in_a_process([&](int say) {
      watch_traps();
      return on_thread(kind, [&] {
        for (size_t i = 0; i < calls.size(); ++i) {
          if (is_trapped(calls[i])) continue;
          (void)!::write(say, "!", 1);
          return static_cast<int>(i);
        }
        return 99;
      });
    });
    EXPECT_EQ(ended.exit_status(), 99) << name(kind) << ": which call; signal " << ended.signal();
    EXPECT_EQ(ended.said, "");
  }
}

// The other way round: what a server of files is there for. Those that do not fit end the process.
TEST_F(Confine, AServerOfFilesMakesWhatGuestsAskFor) {
  std::string pattern = testing::TempDir() + "/snug-confine-XXXXXX";
  const std::filesystem::path folder = ::mkdtemp(pattern.data());
  std::ofstream(folder / "file") << "file";
  const UniqueFd opened(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const UniqueFd own(::open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC));
  const int at = opened.get();
  const std::vector<std::function<long()>> steps{
      [&] { return ::mknodat(at, "fifo", S_IFIFO | 0600, 0); },
      [&] { return ::mknodat(at, "socket", S_IFSOCK | 0600, 0); },
      [&] { return ::mkdirat(at, "folder", 0700); },
      [&] { return ::symlinkat("target", at, "link"); },
      [&] { return ::renameat2(at, "fifo", at, "folder/fifo", RENAME_NOREPLACE); },
      [&] { return ::unlinkat(at, "folder/fifo", 0); },
      [&] { return ::unlinkat(at, "folder", AT_REMOVEDIR); },
      [&] { return ::fchmodat(at, "file", 0640, 0); },
      [&] { return ::openat(at, "new", O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600); },
      [&] { return ::openat(at, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600); },
  };
  const auto run = [&](const std::function<int()>& body) {
    return in_a_process([&](int say) {
      (void)watch_violations(say);
      return on_thread(ThreadKind::kShare, body);
    });
  };
  const Ended ended = run([&] {
    for (size_t i = 0; i < steps.size(); ++i)
      if (steps[i]() < 0) return static_cast<int>(i);
    return 99;
  });
  EXPECT_EQ(ended.exit_status(), 99) << "which step; signal " << ended.signal() << ended.said;
  for (const mode_t type : {S_IFCHR, S_IFBLK, S_IFREG})
    EXPECT_EQ(run([&] { return ::mknodat(at, "node", type | 0600, 0x103); }).exit_status(), 128 + SIGSYS)
        << type;
  std::filesystem::remove_all(folder);
}

TEST_F(Confine, CallsOfOtherKindsEndTheProcess) {
  const auto by_interrupt = [] {
    long result = 20;  // getpid
    asm volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
    return 0;
  };
  const bool is_there = in_a_process([&](int) { return by_interrupt(); }).signal() == 0;
  for (const ThreadKind kind : kAll) {
    const Ended x32 = in_a_process([&](int say) {
      (void)watch_violations(say);
      return on_thread(kind, [] { return static_cast<int>(::syscall(SYS_getpid | 0x40000000)); });
    });
    EXPECT_EQ(x32.signal(), SIGSYS) << name(kind);
    EXPECT_EQ(x32.said, "");
    const Ended old = in_a_process([&](int say) {
      (void)watch_violations(say);
      return on_thread(kind, by_interrupt);
    });
    // A kernel without those calls knows no such interrupt.
    EXPECT_EQ(old.signal(), is_there ? SIGSYS : SIGSEGV) << name(kind);
  }
}

// --- calls that are made ------------------------------------------------------------------------------

TEST_F(Confine, MemoryLocksAndClocksWork) {
  for (const ThreadKind kind : kAll) {
    const Ended ended = in_a_process([&](int say) {
      (void)watch_violations(say);
      return on_thread(kind, [] {
        std::vector<std::vector<char>> small;
        for (size_t i = 0; i < 2000; ++i) small.emplace_back(1000);
        for (size_t i = 0; i < 20; ++i) std::vector<char>(size_t{1} << (10 + i / 2)).back() = 1;
        void* grown = std::malloc(size_t{1} << 20);
        grown = std::realloc(grown, size_t{4} << 20);
        std::free(grown);
        std::mutex mutex;
        const std::lock_guard lock(mutex);
        timespec time{};
        return ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
      });
    });
    EXPECT_EQ(ended.exit_status(), 0) << name(kind) << ended.said;
  }
}

TEST_F(Confine, ABuilderStartsThreadsThatGiveUpMore) {
  for (const ThreadKind kind : {ThreadKind::kVcpu, ThreadKind::kDevice}) {
    const Ended ended = in_a_process([&](int say) {
      (void)watch_violations(say);
      return on_thread(ThreadKind::kBuilder, [&] {
        // It comes and goes.
        std::thread([&] {
          ::pthread_setname_np(::pthread_self(), "short");
          if (!confine_thread(kind)) ::_exit(102);
          std::vector<char>(1000).back() = 1;
        }).join();
        auto loop = LoopThread::create("loop");
        if (!loop || !(*loop)->start()) return 103;
        if (kind == ThreadKind::kDevice)
          (*loop)->call([&] {
            if (!confine_thread(kind)) ::_exit(104);
          });
        (*loop)->call([] {});
        loop->reset();
        return 0;
      });
    });
    EXPECT_EQ(ended.exit_status(), 0) << name(kind) << ended.said;
  }
}

TEST_F(Confine, OnlyABuilderStartsThreads) {
  for (const ThreadKind kind : {ThreadKind::kVcpu, ThreadKind::kDevice, ThreadKind::kLoop}) {
    const Ended ended = in_a_process([&](int say) {
      (void)watch_violations(say);
      std::thread([] {}).join();  // the first one of a process sets up more
      return on_thread(kind, [] {
        std::thread([] {}).join();
        return 0;
      });
    });
    // pthread_create has blocked all signals: the kernel ends the process by itself.
    EXPECT_EQ(ended.signal(), SIGSYS) << name(kind);
    EXPECT_EQ(ended.said, "");
  }
}

TEST_F(Confine, ThreadsKickEachOther) {
  for (const ThreadKind kind : {ThreadKind::kVcpu, ThreadKind::kLoop}) {
    const Ended ended = in_a_process([&](int say) {
      (void)watch_violations(say);
      struct sigaction action {};
      action.sa_handler = [](int) {};
      ::sigaction(SIGRTMIN, &action, nullptr);
      std::promise<void> there;
      std::thread other([&] {
        (void)confine_thread(ThreadKind::kVcpu);
        there.set_value();
        std::promise<void>().get_future().wait();
      });
      there.get_future().wait();
      return on_thread(kind, [&] {
        for (int i = 0; i < 100; ++i)
          if (::pthread_kill(other.native_handle(), SIGRTMIN) != 0) return 1;
        return 0;
      });
    });
    EXPECT_EQ(ended.exit_status(), 0) << name(kind) << ended.said;
  }
}

TEST_F(Confine, AThreadGivesBackHoweverMuchItHasFromMalloc) {
  for (const ThreadKind kind : kAll) {
    const Ended ended = in_a_process([&](int say) {
      (void)watch_violations(say);
      return on_thread(kind, [] {
        // In pieces that no mapping is made for.
        constexpr size_t kPiece = 100'000, kPieces = 200;
        std::vector<std::unique_ptr<char[]>> pieces;
        for (size_t i = 0; i < kPieces; ++i) {
          pieces.push_back(std::make_unique<char[]>(kPiece));
          pieces.back()[kPiece / 2] = 1;
        }
        while (!pieces.empty()) pieces.pop_back();
        return 0;
      });
    });
    EXPECT_EQ(ended.exit_status(), 0) << name(kind) << ended.said;
  }
}

// --- what is said -------------------------------------------------------------------------------------

TEST_F(Confine, AViolationIsOneLine) {
  for (const auto& expected :
       {std::pair{ThreadKind::kVcpu, "vCPU"}, std::pair{ThreadKind::kLoop, "event loop"},
        std::pair{ThreadKind::kDevice, "device"}, std::pair{ThreadKind::kBuilder, "builder"}}) {
    const Ended ended = in_a_process([&](int say) {
      (void)watch_violations(say);
      return on_thread(expected.first, [] { return ::open("/etc/passwd", O_RDONLY); });
    });
    EXPECT_EQ(ended.exit_status(), 159);
    EXPECT_EQ(ended.said,
              fmt::format("snug: error: the monitor's {} thread made a system call that it has no use "
                          "for: openat (257). Either the guest has broken into the monitor or this is "
                          "a bug of snug: ended. Please report it with this line.\n",
                          expected.second));
  }
}

TEST_F(Confine, AViolationNamesTheRequest) {
  const Ended ended = in_a_process([](int say) {
    (void)watch_violations(say);
    return on_thread(ThreadKind::kVcpu, [] { return ::ioctl(0, TIOCSTI, ""); });
  });
  EXPECT_EQ(ended.exit_status(), 159);
  EXPECT_NE(ended.said.find(": ioctl (16, request 0x5412). "), std::string::npos) << ended.said;
  const Ended unknown = in_a_process([](int say) {
    (void)watch_violations(say);
    return on_thread(ThreadKind::kVcpu, [] { return static_cast<int>(::syscall(100000)); });
  });
  EXPECT_NE(unknown.said.find(": one without a name (100000). "), std::string::npos) << unknown.said;
}

TEST_F(Confine, AFailedAssertionIsNoViolation) {
  for (const ThreadKind kind : kAll) {
    const Ended ended = in_a_process([&](int say) {
      (void)watch_violations(say);
      return on_thread(kind, [] {
        SNUG_ASSERT(!kConfines);
        return 0;
      });
    });
    const bool by_abort = ended.signal() == SIGABRT;
    EXPECT_TRUE(by_abort || ended.exit_status() == 128 + SIGABRT) << name(kind) << ": " << ended.status;
    EXPECT_EQ(ended.said, "");
  }
}

TEST_F(Confine, CallsHaveNames) {
  EXPECT_STREQ(call_name(SYS_read), "read");
  EXPECT_STREQ(call_name(SYS_openat), "openat");
  EXPECT_STREQ(call_name(-1), "");
  EXPECT_STREQ(call_name(static_cast<long>(call_count())), "");
  EXPECT_GT(call_count(), 430);
}

}  // namespace
}  // namespace snug::jail
