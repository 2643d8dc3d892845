#include "vmm/jail/thread_rules.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
// The layout of legacy rings, which vhost.h brings along, is no C++.
#define VIRTIO_RING_NO_LEGACY
#include <linux/vhost.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <iterator>

#include "vmm/jail/share_rules.h"

namespace snug::jail {
namespace {

using Rules = std::vector<CallRule>;
using Requests = std::vector<uint32_t>;

// KVM's requests by number and size of what they take: its structures are vmm/kvm's alone.
constexpr uint32_t kvm(uint32_t number, uint32_t direction = _IOC_NONE, uint32_t size = 0) {
  constexpr uint32_t kType = 0xae;
  return _IOC(direction, kType, number, size);
}
constexpr uint32_t kBoth = _IOC_READ | _IOC_WRITE;

namespace request {
constexpr uint32_t kRun = kvm(0x80);
constexpr uint32_t kSetMemory = kvm(0x46, _IOC_WRITE, 32);
constexpr uint32_t kIrqLine = kvm(0x61, _IOC_WRITE, 8);
constexpr uint32_t kCoalesce = kvm(0x67, _IOC_WRITE, 16);
constexpr uint32_t kSetRouting = kvm(0x6a, _IOC_WRITE, 8);
constexpr uint32_t kIrqfd = kvm(0x76, _IOC_WRITE, 32);
constexpr uint32_t kIoeventfd = kvm(0x79, _IOC_WRITE, 64);
constexpr uint32_t kGetRegisters = kvm(0x81, _IOC_READ, 144);
constexpr uint32_t kGetSpecial = kvm(0x83, _IOC_READ, 312);
constexpr uint32_t kTranslate = kvm(0x85, kBoth, 24);
constexpr uint32_t kForgivePause = kvm(0xad);
}  // namespace request

// What devices ask of the VM, whoever works on them: interrupts and doorbells come and go with the guest's
// driver, and so do the rings that vhost works on.
Requests device_requests() {
  using namespace request;
  return {kIrqfd,
          kSetRouting,
          kIoeventfd,
          kIrqLine,
          TUNSETOFFLOAD,
          TUNSETQUEUE,
          VHOST_SET_FEATURES,
          static_cast<uint32_t>(VHOST_SET_MEM_TABLE),
          static_cast<uint32_t>(VHOST_SET_VRING_NUM),
          static_cast<uint32_t>(VHOST_SET_VRING_BASE),
          static_cast<uint32_t>(VHOST_SET_VRING_ADDR),
          static_cast<uint32_t>(VHOST_SET_VRING_KICK),
          static_cast<uint32_t>(VHOST_SET_VRING_CALL),
          static_cast<uint32_t>(VHOST_SET_VRING_ERR),
          static_cast<uint32_t>(VHOST_NET_SET_BACKEND),
          static_cast<uint32_t>(VHOST_GET_VRING_BASE)};
}

// Besides: BARs that the guest moves (register pages are memory slots), the console's writes that KVM is told
// to keep back, and where the vCPU was when it could not go on.
Requests vcpu_requests() {
  using namespace request;
  Requests all{kRun, kForgivePause, kSetMemory, kCoalesce, kGetRegisters, kGetSpecial, kTranslate};
  std::ranges::copy(device_requests(), std::back_inserter(all));
  return all;
}

// TCGETS2, by which newer C libraries ask whether a stream is a terminal.
constexpr uint32_t kTerminalAttributes = _IOC(_IOC_READ, 'T', 0x2a, 44);

constexpr uint32_t kSetTerminalAttributes = _IOC(_IOC_WRITE, 'T', 0x2b, 44);

// Besides: pause and resume, the report on the vCPUs of a machine that was stopped, sizes of terminals, a
// terminal that becomes raw and itself again, whether a stream is one, and sizes of disks.
Requests loop_requests() {
  using namespace request;
  Requests all = device_requests();
  std::ranges::copy(
      Requests{kForgivePause, kGetRegisters, kGetSpecial, kTranslate, TIOCGWINSZ, kTerminalAttributes, TCGETS,
               TCSETS, kSetTerminalAttributes, static_cast<uint32_t>(BLKGETSIZE64)},
      std::back_inserter(all));
  return all;
}

// A snapshot: what KVM tells of a VM and its vCPUs, and copies of disks.
Requests saving_requests() {
  return {kvm(0x02, kBoth, 4),         // KVM_GET_MSR_INDEX_LIST
          kvm(0x42, _IOC_WRITE, 16),   // KVM_GET_DIRTY_LOG
          kvm(0x62, kBoth, 520),       // KVM_GET_IRQCHIP
          kvm(0x7c, _IOC_READ, 48),    // KVM_GET_CLOCK
          kvm(0x88, kBoth, 8),         // KVM_GET_MSRS
          kvm(0x8e, _IOC_READ, 1024),  // KVM_GET_LAPIC
          kvm(0x98, _IOC_READ, 4),     // KVM_GET_MP_STATE
          kvm(0x9f, _IOC_READ, 64),    // KVM_GET_VCPU_EVENTS
          kvm(0xa1, _IOC_READ, 128),   // KVM_GET_DEBUGREGS
          kvm(0xa4, _IOC_READ, 4096),  // KVM_GET_XSAVE
          kvm(0xa6, _IOC_READ, 392),   // KVM_GET_XCRS
          kvm(0xcf, _IOC_READ, 4096),  // KVM_GET_XSAVE2
          kvm(0xe2, _IOC_WRITE, 24),   // KVM_GET_DEVICE_ATTR
          FICLONE};                    // of disks: it takes descriptors of files only
}

// A machine that goes on from the template that it has left itself: what is told to KVM then.
Requests restoring_requests() {
  return {kvm(0x63, _IOC_READ, 520),    // KVM_SET_IRQCHIP, whose number says that it reads
          kvm(0x7b, _IOC_WRITE, 48),    // KVM_SET_CLOCK
          kvm(0x8f, _IOC_WRITE, 1024),  // KVM_SET_LAPIC
          kvm(0x99, _IOC_WRITE, 4),     // KVM_SET_MP_STATE
          kvm(0xa0, _IOC_WRITE, 64),    // KVM_SET_VCPU_EVENTS
          kvm(0xa2, _IOC_WRITE, 128),   // KVM_SET_DEBUGREGS
          kvm(0xa2),                    // KVM_SET_TSC_KHZ
          kvm(0xa5, _IOC_WRITE, 4096),  // KVM_SET_XSAVE
          kvm(0xa7, _IOC_WRITE, 392),   // KVM_SET_XCRS
          kvm(0xe1, _IOC_WRITE, 24)};   // KVM_SET_DEVICE_ATTR
}

// Besides what vCPUs and devices ask: all that makes a VM and its vCPUs, and how large a console is that is a
// terminal.
Requests builder_requests() {
  Requests all = vcpu_requests();
  std::ranges::copy(Requests{kvm(0x03),                   // KVM_CHECK_EXTENSION
                             kvm(0x01),                   // KVM_CREATE_VM
                             kvm(0x05, kBoth, 8),         // KVM_GET_SUPPORTED_CPUID
                             kvm(0x41),                   // KVM_CREATE_VCPU
                             kvm(0x47),                   // KVM_SET_TSS_ADDR
                             kvm(0x48, _IOC_WRITE, 8),    // KVM_SET_IDENTITY_MAP_ADDR
                             kvm(0x60),                   // KVM_CREATE_IRQCHIP
                             kvm(0x82, _IOC_WRITE, 144),  // KVM_SET_REGS
                             kvm(0x84, _IOC_WRITE, 312),  // KVM_SET_SREGS
                             kvm(0x89, _IOC_WRITE, 8),    // KVM_SET_MSRS
                             kvm(0x90, _IOC_WRITE, 8),    // KVM_SET_CPUID2
                             kvm(0xa3),                   // KVM_GET_TSC_KHZ
                             static_cast<uint32_t>(BLKGETSIZE64), TIOCGWINSZ, VHOST_SET_OWNER},
                    std::back_inserter(all));
  std::ranges::copy(saving_requests(), std::back_inserter(all));
  std::ranges::copy(restoring_requests(), std::back_inserter(all));
  return all;
}

CallRule ioctl_of(const Requests& requests) {
  return {SYS_ioctl, "the guest runs; interrupts, doorbells, taps", {{one_of(1, requests)}}};
}

void add(Rules& to, const Rules& more) {
  for (const CallRule& rule : more)
    if (std::ranges::none_of(to, [&](const CallRule& known) { return known.number == rule.number; }))
      to.push_back(rule);
}

// Never code: what is mapped may be read and written at most.
Arguments no_code(uint8_t protection) { return {without(protection, ~uint64_t{PROT_READ | PROT_WRITE})}; }

// What a thread does with memory by malloc() and by ending; `advice`: what it tells the kernel besides of it.
Rules memory_rules(std::vector<uint32_t> advice = {}) {
  advice.insert(advice.begin(), MADV_DONTNEED);
  return {
      {SYS_mmap, "malloc; guest memory", {no_code(2)}},
      {SYS_munmap, "malloc; what a device or machine had mapped", {}},
      {SYS_madvise, "malloc; stacks of threads that end; guest memory", {{one_of(2, std::move(advice))}}},
      {SYS_brk, "malloc", {}},
      // realloc then copies.
      {SYS_mremap, "malloc can do without", {}, ENOMEM},
  };
}

// How many arenas malloc may have: as many as for two processors then. The process's first thread has its
// own.
CallRule arenas_rule() { return {SYS_sched_getaffinity, "malloc can do without", {}, EPERM}; }

// Stacks and malloc's arenas grow by it, of all threads but the process's first.
CallRule mprotect_rule() { return {SYS_mprotect, "malloc's arenas; stacks", {no_code(2)}}; }

// Of every thread: to wait for each other, to look at the clock, to end.
Rules common_rules() {
  return {
      {SYS_futex, "locks, joins", {}},
      {SYS_clock_gettime, "time, where the kernel's page for it has none", {}},
      {SYS_close, "what a device or connection had", {}},
      {SYS_rt_sigprocmask, "to kick, to end, to abort", {}},
      {SYS_exit_group, "the end of the process", {}},
      // Those that wait for a time take that for the end of their wait.
      {SYS_restart_syscall, "after SIGSTOP and SIGCONT", {}, EINTR},
  };
}

// A kick is a signal to one thread of ours. (abort() asks for its thread's number first, and ends there.)
Rules kick_rules() {
  return {
      {SYS_tgkill,
       "vCPUs are kicked out of the guest",
       {{is_own_process(0), is(2, static_cast<uint32_t>(SIGRTMIN))}}},
      {SYS_getpid, "pthread_kill", {}},
  };
}

CallRule epoll_ctl_rule() { return {SYS_epoll_ctl, "watches come, change and go", {}}; }
CallRule receive_rule() { return {SYS_recvmsg, "sockets; descriptors from the warden", {}}; }
CallRule send_rule() { return {SYS_sendmsg, "sockets; requests to the warden", {}}; }
CallRule timer_rule() { return {SYS_timerfd_settime, "timers", {}}; }

// The rest of what a disk or a network interface does, on whichever loop.
Rules device_work_rules() {
  return {
      {SYS_epoll_wait, "the loop waits", {}},
      {SYS_read, "eventfds, timers, frames of a tap", {}},
      {SYS_write, "eventfds, log lines", {}},
      {SYS_io_uring_enter, "disks", {}},
      {SYS_preadv2, "a disk in memory, a disk's threads; ptys", {}},
      {SYS_pwritev2, "a disk in memory, a disk's threads; frames to a tap; ptys", {}},
      receive_rule(),
      send_rule(),
      epoll_ctl_rule(),
  };
}

Rules vcpu_rules() {
  Rules rules{
      ioctl_of(vcpu_requests()),
      {SYS_write, "eventfds: the loop is told; log lines", {}},
      {SYS_rt_sigreturn, "the kick's handler returns", {}},
      // A driver that takes a device over: what came in before is dropped.
      {SYS_read, "frames of a tap", {}},
      receive_rule(),
      // The console's emergency register.
      send_rule(),
      epoll_ctl_rule(),
      {SYS_exit, "the thread ends", {}},
  };
  add(rules, common_rules());
  add(rules, kick_rules());
  add(rules, memory_rules());
  add(rules, {mprotect_rule(), arenas_rule()});
  return rules;
}

Rules loop_rules() {
  Rules rules = device_work_rules();
  add(rules, {ioctl_of(loop_requests()),
              timer_rule(),
              {SYS_timerfd_create, "a command in the guest has a time limit", {}},
              {SYS_poll, "whether a stream that blocks has room", {}},
              {SYS_accept4, "clients of listeners that are open already", {}},
              {SYS_shutdown, "one half of a connection ends", {}},
              {SYS_socketpair, "a connection to the guest's agent", {{is(0, AF_UNIX)}}},
              {SYS_fcntl,
               "whether a stream blocks; copies of our own for a command",
               {{one_of(1, {F_GETFL, F_SETFL, static_cast<uint32_t>(F_DUPFD_CLOEXEC)})}}},
              {SYS_fstat, "a disk's size; what a stream is", {}},
              {SYS_getrandom, "the entropy device", {}}});
  add(rules, common_rules());
  add(rules, kick_rules());
  // The balloon takes memory that a kernel was mapped into.
  add(rules, memory_rules({MADV_DONTFORK, MADV_REMOVE}));
  return rules;
}

Rules device_rules() {
  Rules rules = device_work_rules();
  add(rules, {ioctl_of(device_requests()),
              {SYS_fdatasync, "a disk's threads", {}},
              {SYS_fallocate, "a disk's threads", {}},
              {SYS_exit, "the thread ends", {}}});
  add(rules, common_rules());
  add(rules, memory_rules());
  add(rules, {mprotect_rule(), arenas_rule()});
  return rules;
}

// Flags of pthread_create(3), as glibc and musl have them.
constexpr uint64_t kThreadFlags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SYSVSEM | CLONE_SIGHAND |
                                  CLONE_THREAD | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;

Rules builder_rules() {
  // linux/mman.h since 6.13: guard pages of stacks.
  constexpr uint32_t kGuardInstall = 102;
  // Since 5.14.
  constexpr uint32_t kPopulateWrite = 23;
  Rules rules{ioctl_of(builder_requests())};
  add(rules, memory_rules({MADV_DONTFORK, MADV_HUGEPAGE, MADV_DONTDUMP, kPopulateWrite, kGuardInstall}));
  add(rules, device_rules());
  add(rules, vcpu_rules());
  add(rules, {timer_rule(),
              {SYS_timerfd_create, "timers of the new machine", {}},
              {SYS_eventfd2, "doorbells, interrupts, disks", {}},
              {SYS_memfd_create,
               "guest memory that the server of shares has, too",
               {{is(1, MFD_CLOEXEC | MFD_ALLOW_SEALING)}}},
              {SYS_ftruncate, "files of a snapshot; guest memory that the server of shares has, too", {}},
              {SYS_fcntl,
               "guest memory that the server of shares has, too",
               {{one_of(1, {static_cast<uint32_t>(F_ADD_SEALS)})}}},
              {SYS_epoll_create1, "loops of devices", {}},
              {SYS_pread64, "the kernel is read", {}},
              {SYS_lseek, "holes of disks, and of the memory that a machine began with", {}},
              {SYS_fstat, "sizes of kernel, initrd, disks", {}},
              // fstat(2) of some releases of glibc. Of a path it would tell no more than that it is there.
              {SYS_newfstatat, "sizes of kernel, initrd, disks", {{is(3, AT_EMPTY_PATH)}}},
              {SYS_getrandom, "where the guest's kernel lies", {}},
              {SYS_io_uring_setup, "disks", {}},
              {SYS_io_uring_register, "disks: what the ring may do", {}},
              {SYS_clone, "threads, no processes", {{is64(0, kThreadFlags)}}},
              // A library that gets it starts a thread by clone, whose flags can be seen.
              {SYS_clone3, "flags that a filter cannot see", {}, ENOSYS},
              {SYS_set_robust_list, "a thread starts", {}},
              {SYS_rseq, "a thread starts", {}},
              {SYS_rt_sigaction, "the kick's handler", {{is(0, static_cast<uint32_t>(SIGRTMIN))}}},
              {SYS_prctl,
               "names of threads; threads give up what they have no use for",
               {{one_of(0, {PR_SET_NAME, PR_GET_NO_NEW_PRIVS})}}},
              {SYS_seccomp,
               "threads give up what they have no use for",
               {{is(0, SECCOMP_SET_MODE_FILTER), is(1, 0)}}}});
  return rules;
}

}  // namespace

std::vector<CallRule> thread_rules(ThreadKind kind) {
  switch (kind) {
    case ThreadKind::kVcpu:
      return vcpu_rules();
    case ThreadKind::kLoop:
      return loop_rules();
    case ThreadKind::kDevice:
      return device_rules();
    case ThreadKind::kShare:
      return share_rules();
    case ThreadKind::kBuilder:
      break;
  }
  return builder_rules();
}

// --- what not every run of the tests makes use of -----------------------------------------------------

const std::vector<Unseen>& unseen_entries() {
  using enum ThreadKind;
  using By = Unseen::By;
  static const std::vector<ThreadKind> every{kVcpu, kLoop, kDevice, kBuilder, kShare};
  static const std::vector<ThreadKind> devices{kVcpu, kLoop, kDevice};
  static const std::vector<Unseen> all{
      // The kernel, the C library and chance.
      {every,
       SYS_restart_syscall,
       {},
       By::kAnyTest,
       "the kernel makes it in place of a call: the recorder's"},
      {{kVcpu, kDevice, kBuilder}, SYS_exit_group, {}, By::kAnyTest, "a violation or a failed assertion"},
      {{kDevice, kShare},
       SYS_clock_gettime,
       {},
       By::kAnyTest,
       "only where the kernel's page of the clock has no time"},
      {every, SYS_brk, {}, By::kAnyTest, "memory that one thread has from malloc and another one frees"},
      {every, SYS_mremap, {}, By::kAnyTest, "realloc of more than 128 KiB"},
      {every, SYS_sched_getaffinity, {}, By::kAnyTest, "more than eight threads that use malloc"},
      {{kLoop}, SYS_mmap, {}, By::kAnyTest, "malloc of more than 128 KiB; the balloon, as madvise"},
      {{kDevice}, SYS_mmap, {}, By::kAnyTest, "malloc, if the thread has to have an arena of its own"},
      {{kDevice}, SYS_mprotect, {}, By::kAnyTest, "malloc, as mmap"},
      {{kDevice}, SYS_munmap, {}, By::kAnyTest, "malloc, as mmap"},
      {{kBuilder},
       SYS_madvise,
       {MADV_DONTDUMP},
       By::kLinuxGuests,
       "a reset of a machine with a disk of mode pmem"},
      {{kBuilder}, SYS_madvise, {102}, By::kAnyTest, "C libraries from 2.42 on"},
      {{kBuilder}, SYS_madvise, {23}, By::kLinuxGuests, "a machine begins with a template"},
      {{kShare}, SYS_madvise, {MADV_DONTNEED}, By::kAnyTest, "malloc gives memory back, if there is enough"},
      {{kBuilder, kShare}, SYS_fstat, {}, By::kAnyTest, "fstat(2) of other releases of the C library"},
      {{kShare}, SYS_fgetxattr, {}, By::kAnyTest, "only where the server's own files cannot be its folder"},
      {{kShare},
       SYS_fcntl,
       {F_GETFL},
       By::kLinuxGuests,
       "a snapshot of a guest that has files of a share open"},
      {{kShare}, SYS_rt_sigprocmask, {}, By::kAnyTest, "a failed assertion"},
      {{kShare}, SYS_exit, {}, By::kAnyTest, "a thread ends before its process does"},
      {{kLoop}, SYS_ioctl, {kTerminalAttributes, kSetTerminalAttributes}, By::kAnyTest, "newer C libraries"},
      {{kBuilder},
       SYS_ioctl,
       {kvm(0xa4, _IOC_READ, 4096), kvm(0xcf, _IOC_READ, 4096)},
       By::kAnyTest,
       "one of them, as the CPU has it"},
      {{kBuilder},
       SYS_ioctl,
       {kvm(0xa2), kvm(0xa7, _IOC_WRITE, 392)},
       By::kAnyTest,
       "another processor than the template's, or one with such registers"},
      {{kBuilder}, SYS_rt_sigreturn, {}, By::kAnyTest, "a kick before the thread has confined itself"},
      // What a host has to have.
      {{kLoop, kBuilder}, SYS_ioctl, {BLKGETSIZE64}, By::kAnyTest, "a disk that is the host's block device"},
      {devices,
       SYS_ioctl,
       {VHOST_SET_FEATURES, static_cast<uint32_t>(VHOST_SET_MEM_TABLE),
        static_cast<uint32_t>(VHOST_SET_VRING_NUM), static_cast<uint32_t>(VHOST_SET_VRING_BASE),
        static_cast<uint32_t>(VHOST_SET_VRING_ADDR), static_cast<uint32_t>(VHOST_SET_VRING_KICK),
        static_cast<uint32_t>(VHOST_SET_VRING_CALL), static_cast<uint32_t>(VHOST_SET_VRING_ERR),
        static_cast<uint32_t>(VHOST_NET_SET_BACKEND), static_cast<uint32_t>(VHOST_GET_VRING_BASE)},
       By::kAnyTest,
       "needs /dev/vhost-net"},
      {{kBuilder}, SYS_ioctl, {VHOST_SET_OWNER}, By::kAnyTest, "needs /dev/vhost-net"},
      {devices, SYS_ioctl, {TUNSETOFFLOAD, TUNSETQUEUE}, By::kAnyTest, "needs /dev/net/tun"},
      {{kVcpu}, SYS_read, {}, By::kAnyTest, "needs /dev/net/tun"},
      {{kVcpu}, SYS_epoll_ctl, {}, By::kAnyTest, "needs /dev/vhost-net"},
      {{kLoop}, SYS_pwritev2, {}, By::kAnyTest, "needs /dev/net/tun, or a file system without io_uring"},
      // A driver without message interrupts, or one that gives its queues back, on a device with a thread.
      {{kDevice}, SYS_ioctl, {request::kIrqLine, request::kIoeventfd}, By::kAnyTest, "few drivers"},
      // A matter of the moment.
      {{kVcpu},
       SYS_ioctl,
       {request::kForgivePause},
       By::kAnyTest,
       "the process is stopped while its guest runs"},
      // What micro-guests do not do.
      {{kVcpu}, SYS_tgkill, {}, By::kLinuxGuests, "a machine with several vCPUs ends"},
      {{kVcpu}, SYS_getpid, {}, By::kLinuxGuests, "as tgkill"},
      {{kVcpu}, SYS_ioctl, {request::kSetMemory}, By::kLinuxGuests, "BARs move"},
      {{kLoop}, SYS_ioctl, {TIOCGWINSZ}, By::kLinuxGuests, "a console on a pty"},
      {{kBuilder}, SYS_ioctl, {TIOCGWINSZ}, By::kAnyTest, "a reset of a machine with a console on a pty"},
      {{kLoop}, SYS_fcntl, {}, By::kLinuxGuests, "commands in the guest, and their streams"},
      {{kLoop}, SYS_timerfd_create, {}, By::kLinuxGuests, "a command with a time limit"},
      {{kLoop},
       SYS_madvise,
       {MADV_DONTFORK},
       By::kAnyTest,
       "the balloon takes memory that the kernel lies in"},
      {{kDevice}, SYS_preadv2, {}, By::kAnyTest, "only where the host has no io_uring"},
      {{kDevice}, SYS_pwritev2, {}, By::kAnyTest, "only where the host has no io_uring"},
      {{kDevice}, SYS_fdatasync, {}, By::kAnyTest, "only where the host has no io_uring"},
      {{kDevice}, SYS_fallocate, {}, By::kAnyTest, "only where the host has no io_uring"},
      {{kBuilder}, SYS_timerfd_settime, {}, By::kLinuxGuests, "a reset of a machine with devices"},
      {{kBuilder}, SYS_epoll_create1, {}, By::kLinuxGuests, "a reset of a machine with devices"},
      {{kBuilder}, SYS_io_uring_setup, {}, By::kLinuxGuests, "a reset of a machine with disks"},
      {{kBuilder}, SYS_io_uring_register, {}, By::kLinuxGuests, "a reset of a machine with disks"},
  };
  return all;
}

const Unseen* find_unseen(ThreadKind kind, const CallEntry& entry) {
  const auto is_among = [](const std::vector<uint32_t>& values, const Arguments& arguments) {
    return std::ranges::any_of(arguments, [&](const ArgumentTest& test) {
      return test.kind == ArgumentTest::Kind::kOneOf && std::ranges::count(values, test.values.front()) > 0;
    });
  };
  for (const Unseen& one : unseen_entries())
    if (one.number == entry.rule->number && std::ranges::count(one.kinds, kind) > 0 &&
        (one.values.empty() || is_among(one.values, entry.arguments)))
      return &one;
  return nullptr;
}

unsigned allowed_calls(ThreadKind kind) {
  const auto rules = thread_rules(kind);
  return static_cast<unsigned>(
      std::ranges::count_if(rules, [](const CallRule& rule) { return rule.error == 0; }));
}

}  // namespace snug::jail
