#include "vmm/jail/confine.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>
#include <mutex>

#include "vmm/base/assertion.h"
#include "vmm/base/mapping.h"
#include "vmm/jail/call_names.h"
#include "vmm/jail/record.h"
#include "vmm/jail/thread_rules.h"

namespace snug::jail {
namespace {

// --- programs -----------------------------------------------------------------------------------------

// Those of this process, in memory that nobody can write to: a thread that the guest has taken over cannot
// change what another is about to give up.
class Programs {
 public:
  static Result<Programs> build() {
    Programs programs;
    programs.process_ = ::getpid();
    std::array<std::vector<sock_filter>, kThreadKinds> built;
    size_t size = 0;
    for (size_t kind = 0; kind < kThreadKinds; ++kind) {
      built[kind] = SNUG_TRY(build(static_cast<ThreadKind>(kind), programs.process_));
      size += built[kind].size() * sizeof(sock_filter);
    }
    programs.memory_ =
        SNUG_TRY(Mapping::create(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1));
    auto* next = reinterpret_cast<sock_filter*>(programs.memory_.data());
    for (size_t kind = 0; kind < kThreadKinds; ++kind) {
      programs.programs_[kind] = {static_cast<unsigned short>(built[kind].size()), next};
      next = std::ranges::copy(built[kind], next).out;
    }
    if (::mprotect(programs.memory_.data(), size, PROT_READ) != 0) return fail_errno(errno, "mprotect");
    return programs;
  }

  bool are_of(pid_t process) const { return process_ == process; }
  const sock_fprog& of(ThreadKind kind) const { return programs_[static_cast<size_t>(kind)]; }

 private:
  static Result<std::vector<sock_filter>> build(ThreadKind kind, pid_t process) {
    if (records_calls()) return recorded_filter(kind, process);
    return build_filter(thread_rules(kind), process);
  }

  pid_t process_ = 0;
  Mapping memory_;
  std::array<sock_fprog, kThreadKinds> programs_{};
};

// A process that has been forked makes its own: they name it.
Result<sock_fprog> program_of(ThreadKind kind) {
  static std::mutex mutex;
  static Programs programs;
  const std::lock_guard lock(mutex);
  if (!programs.are_of(::getpid())) programs = SNUG_TRY(Programs::build());
  return programs.of(kind);
}

// --- violations ---------------------------------------------------------------------------------------

constexpr int kNoKind = -1;
// Where a signal handler can reach them.
[[gnu::tls_model("initial-exec")]] constinit thread_local int own_kind = kNoKind;
volatile sig_atomic_t violations_fd = STDERR_FILENO;

// Text in a room of fixed size, for a signal handler.
class Line {
 public:
  Line& operator<<(const char* text) {
    while (*text != 0 && size_ < text_.size()) text_[size_++] = *text++;
    return *this;
  }
  Line& number(uint64_t value, unsigned base) {
    std::array<char, 24> digits{};
    size_t at = digits.size() - 1;
    do digits[--at] = "0123456789abcdef"[value % base];
    while ((value /= base) > 0);
    return *this << &digits[at];
  }
  void write_to(int fd) const { (void)!::write(fd, text_.data(), size_); }

 private:
  std::array<char, 512> text_{};
  size_t size_ = 0;
};

constexpr int kBySeccomp = 1;  // asm-generic/siginfo.h: SYS_SECCOMP, which C libraries do not all have

// Of these the second argument says what they are for; it is no address.
bool has_request(int call) { return call == SYS_ioctl || call == SYS_fcntl; }

void on_violation(int, siginfo_t* info, void* context) {
  // What called it was abort(), which has a thread look at its own number.
  if (assertion_has_failed()) ::_exit(128 + SIGABRT);
  if (info->si_code == kBySeccomp) {
    const char* known = call_name(info->si_syscall);
    Line line;
    line << "snug: error: the monitor's ";
    if (own_kind != kNoKind) line << name(static_cast<ThreadKind>(own_kind)) << " ";
    line << "thread made a system call that it has no use for: "
         << (*known != 0 ? known : "one without a name") << " (";
    line.number(static_cast<unsigned>(info->si_syscall), 10);
    if (has_request(info->si_syscall)) {
      const auto& registers = static_cast<const ucontext_t*>(context)->uc_mcontext.gregs;
      line << ", request 0x";
      line.number(static_cast<uint32_t>(registers[REG_RSI]), 16);
    }
    line << "). Either the guest has broken into the monitor or this is a bug of snug: ended. Please report "
            "it "
            "with this line.\n";
    line.write_to(violations_fd);
  }
  ::_exit(128 + SIGSYS);
}

Result<void> unblock_violations() {
  sigset_t only;
  ::sigemptyset(&only);
  ::sigaddset(&only, SIGSYS);
  // A signal of this kind that is blocked ends the process without a word.
  if (const int error = ::pthread_sigmask(SIG_UNBLOCK, &only, nullptr); error != 0)
    return fail_errno(error, "pthread_sigmask");
  return {};
}

}  // namespace

Result<void> confine_thread(ThreadKind kind) {
  if (!kConfines) return {};
  const sock_fprog program = SNUG_TRY(program_of(kind));
  SNUG_TRY(unblock_violations());
  if (::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1 && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return fail_errno(errno, "no_new_privs");
  own_kind = static_cast<int>(kind);
  record_beginning(kind);
  if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0)
    return fail_errno(errno, "seccomp filter of the {} thread", name(kind));
  return {};
}

Result<void> watch_violations(int fd) {
  violations_fd = fd;
  // glibc opens a file of /proc before it makes the heap of a thread smaller. (malloc_trim() does not.)
  ::mallopt(M_TRIM_THRESHOLD, INT_MAX);
  struct sigaction action {};
  action.sa_sigaction = on_violation;
  action.sa_flags = SA_SIGINFO;
  ::sigfillset(&action.sa_mask);
  if (::sigaction(SIGSYS, &action, nullptr) != 0) return fail_errno(errno, "sigaction");
  return unblock_violations();
}

}  // namespace snug::jail
