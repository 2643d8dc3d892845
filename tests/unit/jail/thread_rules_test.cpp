#include "vmm/jail/thread_rules.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/prctl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/unit/jail/interpreter.h"
#include "vmm/jail/call_names.h"
#include "vmm/kvm/uapi.h"

namespace snug::jail {
namespace {

constexpr std::array kAll{ThreadKind::kVcpu, ThreadKind::kLoop, ThreadKind::kDevice, ThreadKind::kShare,
                          ThreadKind::kBuilder};
constexpr pid_t kProcess = 4711;

using Values = std::array<uint64_t, 6>;

std::vector<sock_filter> filter_of(ThreadKind kind) {
  return build_filter(thread_rules(kind), kProcess).value();
}

// What fits a test, all of it, and something that does not.
std::vector<uint64_t> fitting(const ArgumentTest& test) {
  switch (test.kind) {
    case ArgumentTest::Kind::kOneOf:
      return {test.values.begin(), test.values.end()};
    case ArgumentTest::Kind::kOwnProcess:
      return {kProcess};
    case ArgumentTest::Kind::kEqual64:
      return {test.value};
    case ArgumentTest::Kind::kMasked64:
      break;
  }
  return {test.value, test.value | ~test.mask};
}

uint64_t unfitting(const ArgumentTest& test) {
  if (test.kind == ArgumentTest::Kind::kMasked64) return test.value ^ (test.mask & -test.mask);
  return 0x77777777;
}

uint32_t answer_of(const CallRule& rule) {
  return rule.error == 0 ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | static_cast<uint32_t>(rule.error);
}

// Calls `see` with arguments that fit, each value of each test once at least.
void for_each_fitting(const CallRule& rule, const std::function<void(const Arguments&, Values)>& see) {
  if (rule.allowed.empty()) return see({}, {1, 2, 3, 4, 5, 6});
  for (const Arguments& arguments : rule.allowed) {
    Values values{};
    for (const ArgumentTest& test : arguments) values[test.argument] = fitting(test).front();
    for (const ArgumentTest& test : arguments) {
      Values now = values;
      for (const uint64_t value : fitting(test)) {
        now[test.argument] = value;
        see(arguments, now);
      }
    }
  }
}

TEST(ThreadRules, EveryRuleLetsThroughWhatItSaysAndNothingElse) {
  for (const ThreadKind kind : kAll) {
    const auto program = filter_of(kind);
    for (const CallRule& rule : thread_rules(kind)) {
      SCOPED_TRACE(fmt::format("{}: {}", name(kind), call_name(rule.number)));
      EXPECT_STRNE(rule.why, "");
      for_each_fitting(rule, [&](const Arguments& arguments, Values values) {
        EXPECT_EQ(evaluate(program, call_of(rule.number, values)), answer_of(rule));
        for (const ArgumentTest& test : arguments) {
          Values wrong = values;
          wrong[test.argument] = unfitting(test);
          EXPECT_EQ(evaluate(program, call_of(rule.number, wrong)), SECCOMP_RET_TRAP);
        }
      });
    }
  }
}

TEST(ThreadRules, TheBuilderMayDoWhatThoseThatItStartsMay) {
  const auto builder = filter_of(ThreadKind::kBuilder);
  for (const ThreadKind kind : {ThreadKind::kVcpu, ThreadKind::kDevice})
    for (const CallRule& rule : thread_rules(kind))
      for_each_fitting(rule, [&](const Arguments&, Values values) {
        EXPECT_EQ(evaluate(builder, call_of(rule.number, values)), answer_of(rule)) << call_name(rule.number);
      });
}

TEST(ThreadRules, AreFew) {
  EXPECT_LE(allowed_calls(ThreadKind::kVcpu), 20);
  EXPECT_LE(allowed_calls(ThreadKind::kLoop), 30);
}

TEST(ThreadRules, AVcpuFindsItsOwnCallFirst) {
  const auto rules = thread_rules(ThreadKind::kVcpu);
  EXPECT_EQ(rules.front().number, SYS_ioctl);
  EXPECT_EQ(rules.front().allowed.front().front().values.front(), KVM_RUN);
}

// Of files: those of its shares, which are all that its root holds.
bool reaches_for_files(ThreadKind kind, long number) {
  return kind == ThreadKind::kShare && (number == SYS_openat || number == SYS_openat2);
}

TEST(ThreadRules, NobodyReachesForTheHost) {
  for (const ThreadKind kind : kAll) {
    const auto program = filter_of(kind);
    for (const long number : {SYS_open,
                              SYS_openat,
                              SYS_openat2,
                              SYS_creat,
                              SYS_execve,
                              SYS_execveat,
                              SYS_socket,
                              SYS_connect,
                              SYS_bind,
                              SYS_listen,
                              SYS_ptrace,
                              SYS_bpf,
                              SYS_keyctl,
                              SYS_add_key,
                              SYS_request_key,
                              SYS_userfaultfd,
                              SYS_process_vm_readv,
                              SYS_process_vm_writev,
                              SYS_kill,
                              SYS_tkill,
                              SYS_rt_sigqueueinfo,
                              SYS_pidfd_open,
                              SYS_pidfd_getfd,
                              SYS_name_to_handle_at,
                              SYS_open_by_handle_at,
                              SYS_mount,
                              SYS_umount2,
                              SYS_unshare,
                              SYS_setns,
                              SYS_pivot_root,
                              SYS_chroot,
                              SYS_fork,
                              SYS_vfork,
                              SYS_perf_event_open,
                              SYS_unlink,
                              SYS_rename,
                              SYS_modify_ldt,
                              SYS_memfd_create,
                              SYS_prlimit64,
                              SYS_setuid,
                              SYS_capset})
      if (!reaches_for_files(kind, number))
        EXPECT_EQ(evaluate(program, call_of(number)), SECCOMP_RET_TRAP)
            << name(kind) << ": " << call_name(number);
    for (const long number : {SYS_mmap, SYS_mprotect})
      for (const uint64_t more : {uint64_t{PROT_NONE}, uint64_t{PROT_READ}, uint64_t{PROT_WRITE}})
        EXPECT_EQ(evaluate(program, call_of(number, {0, 4096, PROT_EXEC | more})), SECCOMP_RET_TRAP);
    EXPECT_EQ(evaluate(program, call_of(SYS_ioctl, {0, TIOCSTI})), SECCOMP_RET_TRAP);
    EXPECT_EQ(evaluate(program, call_of(SYS_ioctl, {0, KVM_CREATE_DEVICE})), SECCOMP_RET_TRAP);
    EXPECT_EQ(evaluate(program, call_of(SYS_fcntl, {0, F_SETOWN})), SECCOMP_RET_TRAP);
    EXPECT_EQ(evaluate(program, call_of(SYS_socketpair, {AF_INET})), SECCOMP_RET_TRAP);
    EXPECT_EQ(evaluate(program, call_of(SYS_prctl, {PR_SET_DUMPABLE})), SECCOMP_RET_TRAP);
    EXPECT_EQ(evaluate(program, call_of(SYS_clone, {SIGCHLD})), SECCOMP_RET_TRAP);
    EXPECT_EQ(evaluate(program, call_of(SYS_tgkill, {1, 1, SIGKILL})), SECCOMP_RET_TRAP);
    EXPECT_EQ(evaluate(program, call_of(SYS_clone3)),
              kind == ThreadKind::kBuilder ? SECCOMP_RET_ERRNO | ENOSYS : SECCOMP_RET_TRAP);
  }
}

TEST(ThreadRules, WhatIsNotSeenIsInTheTableAndHasAReason) {
  std::vector<const Unseen*> about;
  for (const ThreadKind kind : kAll) {
    const auto rules = thread_rules(kind);
    for (const CallEntry& entry : entries_of(rules))
      if (const Unseen* one = find_unseen(kind, entry)) about.push_back(one);
  }
  for (const Unseen& one : unseen_entries()) {
    EXPECT_STRNE(one.why, "");
    EXPECT_GE(std::ranges::count(about, &one), static_cast<long>(std::max(one.values.size(), size_t{1})))
        << call_name(one.number) << ": " << one.why;
  }
}

// The numbers are written down: only vmm/kvm knows the structures whose sizes are in them.
TEST(ThreadRules, KnowKvmsRequests) {
  const auto lets = [](ThreadKind kind, uint64_t request) {
    return evaluate(filter_of(kind), call_of(SYS_ioctl, {0, request})) == SECCOMP_RET_ALLOW;
  };
  for (const uint64_t request :
       {uint64_t{KVM_RUN}, uint64_t{KVM_SET_USER_MEMORY_REGION}, uint64_t{KVM_IRQ_LINE},
        uint64_t{KVM_REGISTER_COALESCED_MMIO}, uint64_t{KVM_SET_GSI_ROUTING}, uint64_t{KVM_IRQFD},
        uint64_t{KVM_IOEVENTFD}, uint64_t{KVM_GET_REGS}, uint64_t{KVM_GET_SREGS}, uint64_t{KVM_TRANSLATE},
        uint64_t{KVM_KVMCLOCK_CTRL}})
    EXPECT_TRUE(lets(ThreadKind::kVcpu, request)) << request;
  for (const uint64_t request :
       {uint64_t{KVM_CHECK_EXTENSION}, uint64_t{KVM_CREATE_VM}, uint64_t{KVM_GET_SUPPORTED_CPUID},
        uint64_t{KVM_CREATE_VCPU}, uint64_t{KVM_SET_TSS_ADDR}, uint64_t{KVM_SET_IDENTITY_MAP_ADDR},
        uint64_t{KVM_CREATE_IRQCHIP}, uint64_t{KVM_SET_REGS}, uint64_t{KVM_SET_SREGS}, uint64_t{KVM_SET_MSRS},
        uint64_t{KVM_SET_CPUID2}, uint64_t{KVM_GET_TSC_KHZ}}) {
    EXPECT_TRUE(lets(ThreadKind::kBuilder, request)) << request;
    EXPECT_FALSE(lets(ThreadKind::kVcpu, request)) << request;
    EXPECT_FALSE(lets(ThreadKind::kLoop, request)) << request;
  }
}

}  // namespace
}  // namespace snug::jail
