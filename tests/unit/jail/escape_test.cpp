// Ways out, all together: the wall and the filters of each kind of thread at once, as a guest meets them that
// runs its own code in one. What gets through one is to be stopped by the other.
#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <array>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/jail/traps.h"
#include "vmm/base/unique_fd.h"
#include "vmm/jail/call_names.h"
#include "vmm/jail/confine.h"
#include "vmm/jail/steps.h"
#include "vmm/jail/thread_rules.h"

namespace snug::jail {
namespace {

constexpr size_t kTriesMin = 300;  // of each kind of thread

enum class As { kRoot, kUser };

struct Try {
  std::string what;
  Call call;
};

template <class T>
unsigned long address_of(const T* pointer) {
  return reinterpret_cast<unsigned long>(pointer);
}
template <class T>
constexpr unsigned long value_of(T value) {
  return static_cast<unsigned long>(static_cast<long>(value));
}

// What the tries point to. Outlives them.
struct Matter {
  pid_t parent = 0;
  UniqueFd namespaces;  // of the host, as if it had been forgotten
  UniqueFd folder;      // "/" of the host, so too
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = "/run/systemd/notify"};
  std::array<const char*, 2> words{"/bin/true", nullptr};
  std::array<unsigned long, 11> clone{CLONE_NEWUSER};
  std::array<char, 256> buffer{};
};

using Tries = std::vector<Try>;

void add_names(Tries& tries, Matter& matter) {
  for (const char* name : {"/", "/etc/passwd", "/proc/self/root/etc/passwd", "/proc/1/root", "/dev/kvm",
                           "etc/passwd", "../../../etc/passwd", ".", ".."}) {
    const unsigned long path = address_of(name);
    const unsigned long buffer = address_of(matter.buffer.data());
    const auto add = [&](const char* how, Call call) {
      tries.push_back({std::string(how) + " " + name, call});
    };
    add("open", {SYS_open, {path, O_RDONLY, 0, 0}});
    add("create", {SYS_open, {path, O_RDWR | O_CREAT, 0600, 0}});
    add("creat", {SYS_creat, {path, 0600, 0, 0}});
    for (const unsigned long folder : {value_of(AT_FDCWD), value_of(matter.folder.get())}) {
      add("openat", {SYS_openat, {folder, path, O_RDONLY, 0}});
      add("openat path", {SYS_openat, {folder, path, O_PATH, 0}});
      add("openat2", {SYS_openat2, {folder, path, buffer, 24}});
      add("execveat", {SYS_execveat, {folder, path, address_of(matter.words.data()), 0}});
      add("unlinkat", {SYS_unlinkat, {folder, path, 0, 0}});
      add("readlinkat", {SYS_readlinkat, {folder, path, buffer, 256}});
    }
    add("stat", {SYS_stat, {path, buffer, 0, 0}});
    add("execve", {SYS_execve, {path, address_of(matter.words.data()), 0, 0}});
    add("chroot", {SYS_chroot, {path, 0, 0, 0}});
    add("chdir", {SYS_chdir, {path, 0, 0, 0}});
    add("mkdir", {SYS_mkdir, {path, 0700, 0, 0}});
    add("mount", {SYS_mount, {path, path, 0, MS_BIND}});
    add("open_tree", {SYS_open_tree, {value_of(AT_FDCWD), path, 0, 0}});
    add("inotify", {SYS_inotify_add_watch, {0, path, 1, 0}});
  }
}

void add_processes(Tries& tries, Matter& matter) {
  for (const pid_t target : {matter.parent, 0, 1, -1, 2}) {
    const unsigned long pid = value_of(target);
    const auto add = [&](const char* how, Call call) {
      tries.push_back({std::string(how) + " " + std::to_string(target), call});
    };
    for (const unsigned long request : {PTRACE_ATTACH, PTRACE_SEIZE, PTRACE_TRACEME, PTRACE_PEEKDATA})
      add("ptrace", {SYS_ptrace, {request, pid, 0, 0}});
    for (const int number : {0, SIGKILL, SIGSTOP, SIGTERM}) {
      add("kill", {SYS_kill, {pid, value_of(number), 0, 0}});
      add("tkill", {SYS_tkill, {pid, value_of(number), 0, 0}});
      add("tgkill", {SYS_tgkill, {pid, pid, value_of(number), 0}});
      add("queue", {SYS_rt_sigqueueinfo, {pid, value_of(number), address_of(matter.buffer.data()), 0}});
    }
    add("pidfd", {SYS_pidfd_open, {pid, 0, 0, 0}});
    add("read memory", {SYS_process_vm_readv, {pid, address_of(matter.buffer.data()), 1, 0}});
    add("compare", {SYS_kcmp, {pid, pid, 0, 0}});
    add("limits", {SYS_prlimit64, {pid, 7, 0, 0}});
    add("priority", {SYS_sched_setscheduler, {pid, 1, address_of(matter.buffer.data()), 0}});
  }
}

void add_namespaces(Tries& tries, Matter& matter) {
  for (const unsigned long kind : {CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC,
                                   CLONE_NEWUTS, CLONE_NEWCGROUP}) {
    tries.push_back({"unshare", {SYS_unshare, {kind, 0, 0, 0}}});
    tries.push_back({"clone", {SYS_clone, {kind | SIGCHLD, 0, 0, 0}}});
    tries.push_back({"setns", {SYS_setns, {value_of(matter.namespaces.get()), kind, 0, 0}}});
  }
  tries.push_back({"setns of any kind", {SYS_setns, {value_of(matter.namespaces.get()), 0, 0, 0}}});
  tries.push_back({"clone3", {SYS_clone3, {address_of(matter.clone.data()), sizeof matter.clone, 0, 0}}});
  for (const long number : {SYS_fork, SYS_vfork}) tries.push_back({"fork", {number, {0, 0, 0, 0}}});
  tries.push_back({"a process", {SYS_clone, {SIGCHLD, 0, 0, 0}}});
}

void add_sockets(Tries& tries, Matter& matter) {
  for (const int family : {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_VSOCK, AF_ALG})
    for (const int type : {SOCK_STREAM, SOCK_DGRAM, SOCK_RAW})
      tries.push_back({"socket", {SYS_socket, {value_of(family), value_of(type), 0, 0}}});
  for (int fd = 0; fd < 10; ++fd) {
    const unsigned long address = address_of(&matter.address);
    tries.push_back({"connect", {SYS_connect, {value_of(fd), address, sizeof matter.address, 0}}});
    tries.push_back({"bind", {SYS_bind, {value_of(fd), address, sizeof matter.address, 0}}});
    tries.push_back({"listen", {SYS_listen, {value_of(fd), 1, 0, 0}}});
  }
}

void add_code(Tries& tries) {
  for (const unsigned long protection :
       {PROT_EXEC, PROT_READ | PROT_EXEC, PROT_WRITE | PROT_EXEC, PROT_READ | PROT_WRITE | PROT_EXEC}) {
    for (const unsigned long flags : {MAP_PRIVATE | MAP_ANONYMOUS, MAP_SHARED | MAP_ANONYMOUS})
      tries.push_back({"map code", {SYS_mmap, {0, 4096, protection, flags}}});
    static std::array<char, 8192> memory;
    const unsigned long page = (address_of(memory.data()) + 4095) & ~4095UL;
    tries.push_back({"make code", {SYS_mprotect, {page, 4096, protection, 0}}});
    tries.push_back({"make code by key", {SYS_pkey_mprotect, {page, 4096, protection, value_of(-1)}}});
  }
  tries.push_back({"memfd", {SYS_memfd_create, {address_of("code"), 0, 0, 0}}});
  tries.push_back({"personality", {SYS_personality, {READ_IMPLIES_EXEC, 0, 0, 0}}});
  for (const long number : {SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_init_module, SYS_kexec_load,
                            SYS_keyctl, SYS_add_key})
    tries.push_back({"the kernel", {number, {0, 0, 0, 0}}});
}

// Those that no rule of the kind lets through, with any arguments.
void add_unknown(Tries& tries, ThreadKind kind) {
  std::set<long> known;
  for (const CallRule& rule : thread_rules(kind)) known.insert(rule.number);
  for (long number = 0; number < kHighest; ++number)
    if (!known.contains(number) && !kUnseen.contains(number))
      tries.push_back({std::string("call ") + call_name(number), {number, {-1UL, -1UL, -1UL, -1UL}}});
}

// A ring makes calls that no filter sees. Only a builder can make one; behind the wall it opens nothing.
bool ring_opens(const char* name) {
  io_uring ring;
  if (::io_uring_queue_init(4, &ring, 0) != 0) return false;
  io_uring_sqe* request = ::io_uring_get_sqe(&ring);
  ::io_uring_prep_openat(request, AT_FDCWD, name, O_RDONLY, 0);
  io_uring_cqe* result = nullptr;
  const bool done = ::io_uring_submit_and_wait(&ring, 1) == 1 && ::io_uring_peek_cqe(&ring, &result) == 0;
  return done && result->res >= 0;
}

// Which is empty here.
bool finds_the_root(const Try& one) {
  return one.what == "openat path /" || one.what == "openat path ." || one.what == "openat path ..";
}

// What was not refused, each a word; then how many were tried.
std::string try_all(const Tries& tries, ThreadKind kind) {
  std::string text;
  for (const Try& one : tries) {
    const long result = made(one.call);
    const bool forks = one.call.number == SYS_clone || one.call.number == SYS_fork;
    if (result == 0 && forks) ::_exit(0);
    if (result != -1) text += one.what + "; ";
  }
  if (kind == ThreadKind::kBuilder)
    for (const char* name : {"/etc/passwd", "etc/passwd", "/proc/self/root/etc/passwd", "/", "/dev/null"})
      if (ring_opens(name)) text += std::string("a ring opens ") + name + "; ";
  return text + std::to_string(tries.size());
}

class Escape : public testing::TestWithParam<std::tuple<As, ThreadKind>> {
 protected:
  void SetUp() override {
    if (!kConfines) GTEST_SKIP() << "a sanitizer makes calls of its own";
    if (std::get<0>(GetParam()) == As::kRoot && ::geteuid() != 0) GTEST_SKIP() << "not root";
  }
  static void become_ordinary() {
    constexpr uid_t kOrdinary = 1000;
    if (::geteuid() != 0) return;
    if (::setgroups(0, nullptr) != 0 || ::setresgid(kOrdinary, kOrdinary, kOrdinary) != 0 ||
        ::setresuid(kOrdinary, kOrdinary, kOrdinary) != 0)
      ::_exit(99);
    ::prctl(PR_SET_DUMPABLE, 1);
  }
};

std::string name_of(const testing::TestParamInfo<std::tuple<As, ThreadKind>>& info) {
  constexpr std::array kNames{"Vcpu", "Loop", "Device", "Share", "Builder"};
  return std::string(std::get<0>(info.param) == As::kRoot ? "Root" : "User") +
         kNames.at(static_cast<size_t>(std::get<1>(info.param)));
}
INSTANTIATE_TEST_SUITE_P(By, Escape,
                         testing::Combine(testing::Values(As::kRoot, As::kUser),
                                          testing::Values(ThreadKind::kVcpu, ThreadKind::kLoop,
                                                          ThreadKind::kDevice, ThreadKind::kShare,
                                                          ThreadKind::kBuilder)),
                         name_of);

TEST_P(Escape, NothingGetsThrough) {
  const auto [as, kind] = GetParam();
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
  const pid_t parent = ::fork();
  if (parent == 0) {
    if (as == As::kUser) become_ordinary();
    Matter matter;
    matter.parent = ::getpid();
    matter.namespaces = UniqueFd(::open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC));
    // The one that serves shares has open folders, and a root for them: its wall is what that root holds.
    if (kind != ThreadKind::kShare) matter.folder = UniqueFd(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    auto process = split(Confinement::kNamespaces);
    if (!process) ::_exit(98);
    if (process->child != 0) {
      int status = -1;
      ::waitpid(process->child, &status, 0);
      ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 97);
    }
    Tries tries;
    add_names(tries, matter);
    add_processes(tries, matter);
    add_namespaces(tries, matter);
    add_sockets(tries, matter);
    add_code(tries);
    add_unknown(tries, kind);
    if (kind == ThreadKind::kShare) std::erase_if(tries, finds_the_root);
    const auto entry = take_steps(*process, {128, 8});
    watch_traps();
    const auto work = [&, own = kind] {
      if (!confine_thread(own)) ::_exit(96);
      const std::string text = try_all(tries, own);
      (void)!::write(pipe[1], text.data(), text.size());
      ::_exit(entry.missing.empty() ? 0 : 77);
    };
    if (kind == ThreadKind::kLoop) work();
    std::thread(work).join();
    ::_exit(95);
  }
  ::close(pipe[1]);
  std::string text;
  std::array<char, 4096> buffer;
  for (ssize_t count; (count = ::read(pipe[0], buffer.data(), buffer.size())) > 0;)
    text.append(buffer.data(), static_cast<size_t>(count));
  ::close(pipe[0]);
  int status = -1;
  ::waitpid(parent, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "this host refuses a part of the jail; " << text;
  ASSERT_EQ(WEXITSTATUS(status), 0) << text;
  EXPECT_EQ(text.find(';'), std::string::npos) << "made: " << text;
  const size_t tried = std::stoul(text.substr(text.rfind(' ') == std::string::npos ? 0 : text.rfind(' ')));
  EXPECT_GE(tried, kTriesMin);
  std::printf("%zu refused\n", tried);
}

}  // namespace
}  // namespace snug::jail
