#include "vmm/host/spawn.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <cstddef>
#include <fstream>
#include <iterator>

#include "vmm/base/unique_fd.h"

namespace snug {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// What a program prints, and how it ends.
struct Outcome {
  std::string said;
  int status = -1;
  std::optional<SpawnError> error;
};

Outcome run(const std::string& script, std::optional<std::string> resolv_conf = {},
            bool small_pages = false) {
  std::array<int, 2> pipe{};
  EXPECT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
  const UniqueFd from(pipe[0]);
  UniqueFd to(pipe[1]);
  const UniqueFd third(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const auto pid = spawn({.program = "/bin/sh",
                          .arguments = {"sh", "-c", script},
                          .output = to.get(),
                          .third = third.get(),
                          .resolv_conf = std::move(resolv_conf),
                          .small_pages = small_pages});
  to.reset();
  Outcome outcome;
  if (!pid) {
    outcome.error = pid.error();
    return outcome;
  }
  std::array<char, 4096> buffer;
  for (ssize_t count; (count = ::read(from.get(), buffer.data(), buffer.size())) > 0;)
    outcome.said.append(buffer.data(), static_cast<size_t>(count));
  ::waitpid(*pid, &outcome.status, 0);
  return outcome;
}

TEST(Spawn, StreamsAndStatus) {
  const Outcome outcome = run("echo out; echo err >&2; cat; ls /proc/self/fd; exit 3");
  EXPECT_THAT(outcome.said, StartsWith("out\nerr\n0\n1\n2\n3\n"));
  EXPECT_EQ(WEXITSTATUS(outcome.status), 3);
}

TEST(Spawn, APlainProgramStartsWithSignalsAsTheyWere) {
  sigset_t usr1, before;
  ::sigemptyset(&usr1);
  ::sigaddset(&usr1, SIGUSR1);
  ::pthread_sigmask(SIG_BLOCK, &usr1, &before);
  ::signal(SIGPIPE, SIG_IGN);
  const Outcome outcome = run("grep -E '^Sig(Blk|Ign)' /proc/self/status");
  ::signal(SIGPIPE, SIG_DFL);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_EQ(outcome.said, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

TEST(Spawn, SmallPages) {
  const auto enabled = [](bool small) { return run("grep THP_enabled /proc/self/status", {}, small).said; };
  if (enabled(false) != "THP_enabled:\t1\n") GTEST_SKIP() << "this host has none but small pages";
  EXPECT_EQ(enabled(true), "THP_enabled:\t0\n");
}

TEST(Spawn, WhatCannotBeStarted) {
  const auto pid = spawn({.program = "/nonexistent/passt", .arguments = {"passt"}, .output = 1, .third = 0});
  ASSERT_FALSE(pid);
  EXPECT_FALSE(pid.error().by_namespace);
  EXPECT_THAT(pid.error().error.text(), HasSubstr("start /nonexistent/passt: No such file"));
}

TEST(Spawn, AResolvConfOfItsOwn) {
  std::ifstream file("/etc/resolv.conf");
  if (!file) GTEST_SKIP() << "this host has no /etc/resolv.conf";
  const std::string before{std::istreambuf_iterator<char>(file), {}};
  const Outcome outcome = run("cat /etc/resolv.conf; id -u; id -g", "nameserver 192.0.2.53\n");
  if (outcome.error && outcome.error->by_namespace) GTEST_SKIP() << outcome.error->error.text();
  EXPECT_EQ(outcome.said, fmt::format("nameserver 192.0.2.53\n{}\n{}\n", ::geteuid(), ::getegid()));
  std::ifstream again("/etc/resolv.conf");
  const std::string after{std::istreambuf_iterator<char>(again), {}};
  EXPECT_EQ(after, before) << "and nobody else sees it";
}

// A host that forbids it (Ubuntu's AppArmor rule on user namespaces): said as such, so that the caller goes
// on without.
TEST(Spawn, AHostThatForbidsNamespaces) {
  const auto in_child = [] {
    std::array<sock_filter, 4> filter{{BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                                       BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unshare, 0, 1),
                                       BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                                       BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)}};
    const sock_fprog program{filter.size(), filter.data()};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
      ::_exit(2);
    const Outcome refused = run("true", "nameserver 192.0.2.53\n");
    const Outcome without = run("echo there");
    ::_exit(refused.error && refused.error->by_namespace && without.said == "there\n" ? 0 : 1);
  };
  const pid_t child = ::fork();
  if (child == 0) in_child();
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 2) GTEST_SKIP() << "no seccomp here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace snug
