// What a process can still do once it has locked itself in. It cannot report to the test by itself: it sends
// what is wrong through a pipe, and nothing is right.
#include "vmm/jail/steps.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <functional>

#include "vmm/jail/capabilities.h"
#include "vmm/jail/landlock.h"

#if defined(__SANITIZE_THREAD__)
#define SNUG_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SNUG_THREAD_SANITIZER 1
#endif
#endif

namespace snug::jail {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

constexpr Limits kLimits{64, 4};
constexpr uid_t kOrdinary = 1000;
constexpr int kPatience = 20'000;  // milliseconds

enum class As { kRoot, kUser };

std::string name_of(const testing::TestParamInfo<As>& info) {
  return info.param == As::kRoot ? "Root" : "User";
}

void become_ordinary() {
  if (::geteuid() != 0) return;
  if (::setgroups(0, nullptr) != 0 || ::setresgid(kOrdinary, kOrdinary, kOrdinary) != 0 ||
      ::setresuid(kOrdinary, kOrdinary, kOrdinary) != 0)
    ::_exit(99);
  // As after a login: else what is in /proc would be root's.
  ::prctl(PR_SET_DUMPABLE, 1);
}

struct Pipe {
  UniqueFd from, to;
  Pipe() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    from = UniqueFd(ends[0]);
    to = UniqueFd(ends[1]);
  }
};

// Until nobody has the other end, or patience ends.
std::string all_of(int fd) {
  std::string text;
  std::array<char, 4096> buffer;
  for (;;) {
    pollfd waiting{fd, POLLIN, 0};
    if (::poll(&waiting, 1, kPatience) <= 0) return text + "(no end)";
    const ssize_t count = ::read(fd, buffer.data(), buffer.size());
    if (count <= 0) return text;
    text.append(buffer.data(), static_cast<size_t>(count));
  }
}

using Body = std::function<std::string(const Entry&)>;

// What `body` says in the jail of a process of that user, which does `before` first.
std::string in_jail(As as, const Body& body, const std::function<void()>& before = {}) {
  Pipe pipe;
  const pid_t parent = ::fork();
  if (parent == 0) {
    if (as == As::kUser) become_ordinary();
    if (before) before();
    auto process = split(Confinement::kNamespaces);
    if (!process) ::_exit(98);
    if (process->child == 0) {
      const std::string text = body(take_steps(*process, kLimits));
      (void)!::write(pipe.to.get(), text.data(), text.size());
      ::_exit(0);
    }
    int status = -1;
    ::waitpid(process->child, &status, 0);
    ::_exit(status == 0 ? 0 : 97);
  }
  pipe.to.reset();
  std::string text = all_of(pipe.from.get());
  int status = -1;
  ::waitpid(parent, &status, 0);
  if (status != 0) text += fmt::format("(status {:#x})", status);
  return text;
}

std::string missing_in(const Entry& entry) {
  std::string text;
  for (const MissingStep& step : entry.missing)
    text += fmt::format("{}: {}; {}\n", step.name, step.why, step.hint);
  return text;
}

std::string done_in(const Entry& entry) {
  std::string text;
  for (const std::string& name : entry.done) text += name + '\n';
  return text;
}

class Jail : public testing::Test {
 protected:
  void SetUp() override {
#ifdef SNUG_THREAD_SANITIZER
    GTEST_SKIP() << "the sanitizer's own threads are not in a process made by a bare clone(2)";
#endif
  }
  // Skips where the host does not give all of it.
  static bool whole(As as) {
    const std::string missing = in_jail(as, missing_in);
    if (missing.empty()) return true;
    [&] { GTEST_SKIP() << "this host refuses " << missing; }();
    return false;
  }
};

class JailSteps : public Jail, public testing::WithParamInterface<As> {
 protected:
  void SetUp() override {
    Jail::SetUp();
    if (GetParam() == As::kRoot && ::geteuid() != 0) GTEST_SKIP() << "not root";
  }
  static bool whole() { return Jail::whole(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(By, JailSteps, testing::Values(As::kRoot, As::kUser), name_of);

// Collects what should have failed, or failed in another way.
class Findings {
 public:
  void refused(const char* what, long outcome) {
    if (outcome >= 0) text_ += fmt::format("{} works; ", what);
  }
  void refused_with(const char* what, long outcome, int error) {
    if (outcome >= 0 || errno != error)
      text_ += fmt::format("{}: {}, {}; ", what, outcome, errno_text(errno));
  }
  void equal(const char* what, long value, long expected) {
    if (value != expected) text_ += fmt::format("{} is {}, not {}; ", what, value, expected);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

TEST_P(JailSteps, AreAllTakenOnThisMachine) {
  const std::string done = in_jail(GetParam(), done_in);
  for (const char* step : {"limits", "no capabilities", "no new privileges", "not to be traced or dumped",
                           "end with the parent"})
    EXPECT_THAT(done, HasSubstr(step));
  if (!whole()) return;
  for (const char* step : {"namespaces: ", "user namespace", "empty root", "limit of threads", "Landlock"})
    EXPECT_THAT(done, HasSubstr(step));
  EXPECT_EQ(done.find("nobody") != std::string::npos, GetParam() == As::kRoot);
}

TEST_P(JailSteps, LeaveNothingThatHasAName) {
  if (!whole()) return;
  EXPECT_EQ(in_jail(GetParam(),
                    [](const Entry&) {
                      Findings found;
                      for (const char* name : {"/etc/passwd", "etc/passwd", "../etc/passwd",
                                               "/proc/self/root", "/proc", "/dev/null", "/tmp"}) {
                        found.refused(name, ::open(name, O_RDONLY));
                        found.refused(name, ::open(name, O_PATH));
                        found.refused(name, ::open(name, O_RDWR | O_CREAT, 0600));
                      }
                      struct stat top {
                      }, above{};
                      ::stat("/", &top);
                      ::stat("/..", &above);
                      found.equal("what is above", static_cast<long>(above.st_ino),
                                  static_cast<long>(top.st_ino));
                      found.refused("open /", ::open("/", O_RDONLY | O_DIRECTORY));
                      found.refused("mkdir", ::mkdir("/new", 0700));
                      found.refused("mknod", ::mknod("/null", S_IFCHR | 0600, 0x103));
                      found.refused("symlink", ::symlink("a", "/b"));
                      found.refused("chmod", ::chmod("/", 0777));
                      found.refused("temporary file", ::open("/", O_TMPFILE | O_RDWR, 0600));
                      return found.text();
                    }),
            "");
}

TEST_P(JailSteps, LeaveNoNetwork) {
  if (!whole()) return;
  const UniqueFd outside(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string name = fmt::format("snug-jail-{}", ::getpid());
  name.copy(address.sun_path + 1, sizeof address.sun_path - 1);
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  ASSERT_EQ(::bind(outside.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(::listen(outside.get(), 1), 0);
  const auto connect_to_it = [&](const Entry&) {
    Findings found;
    const UniqueFd udp(::socket(AF_INET, SOCK_DGRAM, 0));
    ifreq request{};
    for (request.ifr_ifindex = 1; request.ifr_ifindex < 100; ++request.ifr_ifindex) {
      const int index = request.ifr_ifindex;
      if (::ioctl(udp.get(), SIOCGIFNAME, &request) != 0 || ::ioctl(udp.get(), SIOCGIFFLAGS, &request) != 0) {
        request.ifr_ifindex = index;
        continue;
      }
      if ((request.ifr_flags & IFF_UP) != 0) found.equal("interface that is up", index, 0);
      request.ifr_flags |= IFF_UP;
      found.refused("to bring it up", ::ioctl(udp.get(), SIOCSIFFLAGS, &request));
      request.ifr_ifindex = index;
    }
    sockaddr_in loopback{};
    loopback.sin_family = AF_INET;
    loopback.sin_port = htons(9);
    loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    found.refused_with("connect to 127.0.0.1",
                       ::connect(udp.get(), reinterpret_cast<sockaddr*>(&loopback), sizeof loopback),
                       ENETUNREACH);
    const UniqueFd stream(::socket(AF_UNIX, SOCK_STREAM, 0));
    found.refused("abstract socket", ::connect(stream.get(), reinterpret_cast<sockaddr*>(&address), length));
    found.refused("raw socket", ::socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    return found.text();
  };
  EXPECT_EQ(in_jail(GetParam(), connect_to_it), "");
}

TEST_P(JailSteps, LeaveNoOtherProcess) {
  if (!whole()) return;
  const pid_t outside = ::getpid();
  EXPECT_EQ(in_jail(GetParam(),
                    [outside](const Entry&) {
                      Findings found;
                      found.equal("own number", ::getpid(), 1);
                      found.equal("thread's number", ::gettid(), 1);
                      found.equal("parent", ::getppid(), 0);
                      found.refused("kill", ::kill(outside, 0));
                      found.refused("kill all", ::kill(-1, SIGKILL));
                      found.refused("ptrace", ::ptrace(PTRACE_ATTACH, outside, nullptr, nullptr));
                      found.refused("ptrace of 0", ::ptrace(PTRACE_ATTACH, ::getppid(), nullptr, nullptr));
                      found.refused("pidfd", ::syscall(SYS_pidfd_open, outside, 0));
                      return found.text();
                    }),
            "");
}

std::string look_for_privileges(const Entry&) {
  Findings found;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> sets{};
  found.equal("capget", ::syscall(SYS_capget, &header, sets.data()), 0);
  for (const auto& set : sets)
    found.equal("capabilities", set.effective | set.permitted | set.inheritable, 0);
  for (int capability = 0; capability < 64; ++capability) {
    if (::prctl(PR_CAPBSET_READ, capability) > 0) found.equal("in the bounding set", capability, -1);
    if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, capability, 0, 0) > 0)
      found.equal("in the ambient set", capability, -1);
  }
  found.equal("securebits", ::prctl(PR_GET_SECUREBITS), 0xef);
  found.refused("to change securebits", ::prctl(PR_SET_SECUREBITS, 0));
  found.equal("no_new_privs", ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
  found.equal("dumpable", ::prctl(PR_GET_DUMPABLE), 0);
  for (const uid_t user : {0U, kOrdinary, 65533U}) found.refused("setuid", ::setuid(user));
  found.refused("setgid", ::setgid(0));
  found.refused("setgroups", ::setgroups(0, nullptr));
  found.refused("mount", ::mount("none", "/", "tmpfs", 0, nullptr));
  found.refused("remount", ::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND, nullptr));
  found.refused("umount", ::umount2("/", MNT_DETACH));
  found.refused("pivot_root", ::syscall(SYS_pivot_root, ".", "."));
  found.refused("chroot", ::chroot("/"));
  for (const int kind :
       {CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP})
    found.refused("unshare", ::unshare(kind));
  found.refused("sethostname", ::sethostname("a", 1));
  return found.text();
}

TEST_P(JailSteps, LeaveNoPrivileges) {
  if (!whole()) return;
  EXPECT_EQ(in_jail(GetParam(), look_for_privileges), "");
}

TEST_P(JailSteps, NoWayIntoNamespacesOutside) {
  if (!whole()) return;
  // Opened before, as by a parent that has forgotten one.
  const UniqueFd mounts(::open("/proc/self/ns/mnt", O_RDONLY)), users(::open("/proc/self/ns/user", O_RDONLY)),
      network(::open("/proc/self/ns/net", O_RDONLY));
  EXPECT_EQ(in_jail(GetParam(),
                    [&](const Entry&) {
                      Findings found;
                      for (const UniqueFd* one : {&mounts, &users, &network})
                        found.refused("setns", ::setns(one->get(), 0));
                      return found.text();
                    }),
            "");
}

TEST_P(JailSteps, WhatIsOpenStaysUsable) {
  if (!whole()) return;
  std::array<char, 32> path{"/tmp/snug-jail-XXXXXX"};
  const UniqueFd file(::mkstemp(path.data()));
  ::unlink(path.data());
  const UniqueFd null(::open("/dev/null", O_RDWR));
  EXPECT_EQ(in_jail(GetParam(),
                    [&](const Entry&) {
                      Findings found;
                      found.equal("write", ::write(file.get(), "abc", 3), 3);
                      found.equal("truncate", ::ftruncate(file.get(), 4096), 0);
                      found.equal(
                          "punch",
                          ::fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
                      found.equal("write to a device", ::write(null.get(), "abc", 3), 3);
                      found.equal("memfd", ::memfd_create("memory", MFD_CLOEXEC) >= 0 ? 1 : 0, 1);
                      return found.text();
                    }),
            "");
}

std::string count_processes(const Entry&) {
  int made = 0;
  for (; made < 10; ++made) {
    const pid_t child = ::fork();
    if (child == 0) ::pause();
    if (child < 0) break;
  }
  return fmt::format("made {}", made);
}

TEST_P(JailSteps, Limits) {
  if (!whole()) return;
  EXPECT_EQ(in_jail(GetParam(),
                    [](const Entry&) {
                      Findings found;
                      rlimit limit{};
                      ::getrlimit(RLIMIT_CORE, &limit);
                      found.equal("core", static_cast<long>(limit.rlim_max), 0);
                      ::getrlimit(RLIMIT_NOFILE, &limit);
                      found.equal("descriptors", static_cast<long>(limit.rlim_max), 64);
                      long opened = 0;
                      while (opened < 100 && ::memfd_create("one", 0) >= 0) ++opened;
                      if (opened == 100) found.equal("descriptors opened", opened, 64);
                      return found.text();
                    }),
            "");
}

TEST_P(JailSteps, LimitOfThreads) {
  if (!whole()) return;
  // The first of the four is the process itself.
  EXPECT_EQ(in_jail(GetParam(), count_processes), "made 3");
}

TEST_P(JailSteps, TheParentKnowsNothingOfIt) {
  // What the child does to its namespaces, the process it came from does not see.
  if (!whole()) return;
  struct stat before {
  }, after{};
  ::stat("/", &before);
  in_jail(GetParam(), missing_in);
  ::stat("/", &after);
  EXPECT_EQ(before.st_dev, after.st_dev);
  EXPECT_EQ(::access("/etc/passwd", R_OK), 0);
}

// The figures of vmm/jail/README.md are this on a quiet host; the bound is for a slow and busy one.
TEST_F(Jail, TakesLittleTime) {
  const auto processor_time = [](int whose) {
    rusage used{};
    ::getrusage(whose, &used);
    return (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1'000'000 + used.ru_utime.tv_usec +
           used.ru_stime.tv_usec;
  };
  constexpr int kRounds = 30;
  for (const Confinement confinement : {Confinement::kNone, Confinement::kNamespaces}) {
    const long before = processor_time(RUSAGE_SELF) + processor_time(RUSAGE_CHILDREN);
    for (int round = 0; round < kRounds; ++round) {
      auto process = split(confinement);
      ASSERT_TRUE(process);
      if (process->child == 0) {
        if (confinement != Confinement::kNone) take_steps(*process, kLimits);
        ::_exit(0);
      }
      ::waitpid(process->child, nullptr, 0);
    }
    const long each = (processor_time(RUSAGE_SELF) + processor_time(RUSAGE_CHILDREN) - before) / kRounds;
    std::printf("%s: %ld us of CPU time\n", confinement == Confinement::kNone ? "a child" : "in the jail",
                each);
    EXPECT_LT(each, 100'000);
  }
}

// Killed at any time, before the child has taken its steps as well as after: nobody outlives it.
TEST_P(JailSteps, TheChildEndsWithItsParent) {
  for (int round = 0; round < 100; ++round) {
    Pipe pipe;
    const pid_t parent = ::fork();
    if (parent == 0) {
      if (GetParam() == As::kUser) become_ordinary();
      auto process = split(Confinement::kNamespaces);
      if (process && process->child == 0) {
        take_steps(*process, kLimits);
        (void)!::write(pipe.to.get(), "in", 2);
      }
      for (;;) ::pause();
    }
    pipe.to.reset();
    if (round % 2 == 0) {
      std::array<char, 2> in{};
      ASSERT_EQ(::read(pipe.from.get(), in.data(), 2), 2);
    } else {
      ::usleep(round * 30);
    }
    ::kill(parent, SIGKILL);
    ::waitpid(parent, nullptr, 0);
    ASSERT_THAT(all_of(pipe.from.get()), Not(HasSubstr("(no end)"))) << round;
  }
}

TEST_P(JailSteps, AnUnconfinedChildEndsWithItsParentToo) {
  Pipe pipe;
  const pid_t parent = ::fork();
  if (parent == 0) {
    if (GetParam() == As::kUser) become_ordinary();
    auto process = split(Confinement::kNone);
    if (process && process->child == 0) {
      const bool fine = process->namespaces == Namespaces::kNone && process->refused == 0 &&
                        end_with_parent(*process) == 0 && ::access("/etc/passwd", R_OK) == 0 &&
                        ::getppid() > 1;
      (void)!::write(pipe.to.get(), fine ? "ok" : "no", 2);
    }
    for (;;) ::pause();
  }
  pipe.to.reset();
  std::array<char, 3> said{};
  ASSERT_EQ(::read(pipe.from.get(), said.data(), 2), 2);
  EXPECT_STREQ(said.data(), "ok");
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  EXPECT_EQ(all_of(pipe.from.get()), "");
}

TEST_F(Jail, TheParentSeesTheEndOfTheChild) {
  auto process = split(Confinement::kNone);
  ASSERT_TRUE(process);
  if (process->child == 0) ::_exit(parent_gone(process->lifeline.get()) ? 1 : 7);
  pollfd end{process->process.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&end, 1, kPatience), 1);
  EXPECT_TRUE(parent_gone(process->lifeline.get()));
  int status = 0;
  ::waitpid(process->child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

// --- hosts that refuse ------------------------------------------------------------------------------------

bool put(const char* path, const std::string& text) {
  const UniqueFd file(::open(path, O_WRONLY | O_CLOEXEC));
  return file && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// A host, as far as user namespaces go, that makes none. The caller has all capabilities on it.
void enter_a_host_without_user_namespaces() {
  const uid_t user = ::geteuid();
  const gid_t group = ::getegid();
  if (::unshare(CLONE_NEWUSER) != 0 || !put("/proc/self/setgroups", "deny") ||
      !put("/proc/self/uid_map", fmt::format("{} {} 1", user, user)) ||
      !put("/proc/self/gid_map", fmt::format("{} {} 1", group, group)) ||
      !put("/proc/sys/user/max_user_namespaces", "0"))
    ::_exit(96);
}

TEST_F(Jail, OrdinaryUserOfAHostWithoutUserNamespaces) {
  if (!whole(As::kUser)) return;
  const auto before = [] {
    enter_a_host_without_user_namespaces();
    drop_capabilities();
  };
  EXPECT_EQ(in_jail(As::kUser, missing_in, before),
            "user namespace: No space left on device; sudo sysctl user.max_user_namespaces=10000\n");
  const std::string done = in_jail(As::kUser, done_in, before);
  for (const char* step : {"limits", "no capabilities", "no new privileges", "not to be traced or dumped",
                           "Landlock", "end with the parent"})
    EXPECT_THAT(done, HasSubstr(step));
  EXPECT_THAT(done, Not(HasSubstr("empty root")));
  // Landlock alone keeps it from opening anything.
  EXPECT_EQ(in_jail(
                As::kUser,
                [](const Entry&) {
                  Findings found;
                  found.refused_with("open", ::open("/etc/passwd", O_RDONLY), EACCES);
                  found.refused_with("a folder", ::open("/", O_RDONLY | O_DIRECTORY), EACCES);
                  if (landlock_version() >= 6) found.refused_with("signal", ::kill(::getppid(), 0), EPERM);
                  return found.text();
                },
                before),
            "");
}

TEST_F(Jail, RootOfAHostWithoutUserNamespaces) {
  if (!whole(As::kUser)) return;
  EXPECT_THAT(in_jail(As::kUser, missing_in, enter_a_host_without_user_namespaces),
              StartsWith("user namespace: No space left on device; "));
  const std::string done = in_jail(As::kUser, done_in, enter_a_host_without_user_namespaces);
  EXPECT_THAT(done, AllOf(HasSubstr("namespaces: "), HasSubstr("empty root"), HasSubstr("no capabilities")));
}

// Root of a container: it may neither mount nor make namespaces, but with a user namespace.
void lose_administration() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> sets{};
  ::syscall(SYS_capget, &header, sets.data());
  sets[0].effective &= ~CAP_TO_MASK(CAP_SYS_ADMIN);
  sets[0].permitted &= ~CAP_TO_MASK(CAP_SYS_ADMIN);
  if (::syscall(SYS_capset, &header, sets.data()) != 0) ::_exit(94);
}

TEST_F(Jail, RootOfAContainer) {
  if (::geteuid() != 0) GTEST_SKIP() << "not root";
  if (!whole(As::kRoot)) return;
  EXPECT_EQ(in_jail(As::kRoot, missing_in, lose_administration), "");
  EXPECT_THAT(in_jail(As::kRoot, done_in, lose_administration),
              AllOf(HasSubstr("user namespace"), HasSubstr("nobody"), HasSubstr("empty root")));
  EXPECT_EQ(in_jail(As::kRoot, look_for_privileges, lose_administration), "");
  // The kernel lets user 0 have any number of processes.
  EXPECT_EQ(in_jail(As::kRoot, count_processes, lose_administration), "made 3");
}

TEST_F(Jail, RootOfAContainerWithoutNamespaces) {
  if (::geteuid() != 0) GTEST_SKIP() << "not root";
  const auto before = [] {
    // In a chroot there are no user namespaces.
    if (::chroot("/proc") != 0) ::_exit(93);
    lose_administration();
  };
  EXPECT_THAT(in_jail(As::kRoot, missing_in, before),
              StartsWith("user namespace: Operation not permitted; "));
  EXPECT_THAT(in_jail(As::kRoot, done_in, before),
              AllOf(HasSubstr("nobody"), HasSubstr("no capabilities"), Not(HasSubstr("empty root"))));
  EXPECT_EQ(in_jail(
                As::kRoot,
                [](const Entry&) {
                  Findings found;
                  found.equal("user", ::getuid(), kNobody);
                  found.equal("group", ::getegid(), kNobody);
                  found.equal("groups", ::getgroups(0, nullptr), 0);
                  found.refused("setuid", ::setuid(0));
                  found.refused("open", ::open("/version", O_RDONLY));
                  for (int capability = 0; capability < 64; ++capability)
                    if (::prctl(PR_CAPBSET_READ, capability) > 0)
                      found.equal("in the bounding set", capability, -1);
                  return found.text();
                },
                before),
            "");
}

// Below the folder of a chroot lie mounts that may be shared with the host's: nothing may be mounted there.
TEST_F(Jail, RootOfAChrootThatIsNoMount) {
  if (::geteuid() != 0) GTEST_SKIP() << "not root";
  if (!whole(As::kRoot)) return;
  const auto before = [] {
    if (::chroot("/usr") != 0) ::_exit(92);
  };
  const std::string missing = in_jail(As::kRoot, missing_in, before);
  EXPECT_THAT(missing, StartsWith("empty root: Invalid argument; a mount point"));
  EXPECT_THAT(missing, HasSubstr("user namespace: Operation not permitted; "));
  EXPECT_THAT(in_jail(As::kRoot, done_in, before), AllOf(HasSubstr("nobody"), HasSubstr("Landlock")));
  EXPECT_EQ(::access("/usr/bin/env", X_OK), 0);
}

TEST_F(Jail, ARootThatCannotBeReplaced) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can see the very first root of a host";
  if (!whole(As::kRoot)) return;
  const auto before = [] {
    const UniqueFd own(::unshare(CLONE_NEWNS) == 0 ? ::open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC) : -1);
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::umount2("/", MNT_DETACH) != 0 || ::setns(own.get(), CLONE_NEWNS) != 0)
      ::_exit(95);
  };
  const auto look = [](const Entry& entry) {
    Findings found;
    for (const char* name : {"/dev", "/root", "../dev", "/etc"}) found.refused(name, ::open(name, O_PATH));
    return found.text() + done_in(entry);
  };
  const std::string said = in_jail(As::kRoot, look, before);
  EXPECT_THAT(said, AllOf(Not(HasSubstr("works")), HasSubstr("empty root"), Not(HasSubstr("(")))) << said;
}

TEST_F(Jail, TriedOut) {
  const As as = ::geteuid() == 0 ? As::kRoot : As::kUser;
  const auto entry = try_out();
  ASSERT_TRUE(entry) << entry.error().message;
  EXPECT_EQ(done_in(*entry), in_jail(as, done_in));
  EXPECT_EQ(missing_in(*entry), in_jail(as, missing_in));
}

}  // namespace
}  // namespace snug::jail
