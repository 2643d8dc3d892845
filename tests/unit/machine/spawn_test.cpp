#include "vmm/machine/spawn.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
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

Outcome run(const std::string& script, std::optional<std::string> resolv_conf = {}) {
  std::array<int, 2> pipe{};
  EXPECT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
  const UniqueFd from(pipe[0]);
  UniqueFd to(pipe[1]);
  const UniqueFd third(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const auto pid = spawn({"/bin/sh", {"sh", "-c", script}, to.get(), third.get(), std::move(resolv_conf)});
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

TEST(Spawn, WhatCannotBeStarted) {
  const auto pid = spawn({"/nonexistent/passt", {"passt"}, 1, 0, {}});
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

}  // namespace
}  // namespace snug
