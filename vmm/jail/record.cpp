#include "vmm/jail/record.h"

#include <linux/seccomp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "vmm/base/assertion.h"
#include "vmm/jail/call_names.h"
#include "vmm/jail/thread_rules.h"

// The two places whose calls are not recorded: by the first the handler makes what it has noted, by the
// second it returns, and so does a handler whose return it has noted. A filter sees the address behind the
// instruction.
asm(R"(
  .pushsection .text.snug_recorded, "ax", @progbits
  .globl snug_make_call, snug_call_made, snug_return, snug_returned
  .hidden snug_make_call, snug_call_made, snug_return, snug_returned
  .type snug_make_call, @function
snug_make_call:
  mov %rdi, %rax
  mov (%rsi), %rdi
  mov 16(%rsi), %rdx
  mov 24(%rsi), %r10
  mov 32(%rsi), %r8
  mov 40(%rsi), %r9
  mov 8(%rsi), %rsi
  syscall
snug_call_made:
  ret
  .type snug_return, @function
snug_return:
  mov $15, %eax
  syscall
snug_returned:
  hlt
  .popsection
)");

extern "C" {
long snug_make_call(long number, const long* arguments);
void snug_return();
extern const char snug_call_made[];
extern const char snug_returned[];
}

namespace snug::jail {
namespace {

using CallArguments = std::array<long, 6>;

// More than all kinds have together.
constexpr size_t kEntries = 1024;

// What the handler looks at: complete before it is installed, but for what has been seen.
std::vector<std::string> lines;
std::array<uint16_t, kThreadKinds> first_entry{};
std::array<uint8_t, kEntries> errors{};
uint16_t clone_entry = 0;
std::array<std::atomic<bool>, kEntries> seen{};
std::atomic<bool> builder_is_there{false};
int record_fd = -1;
void (*on_others)(int, siginfo_t*, void*) = nullptr;

long make_call(long number, const CallArguments& arguments) {
  return snug_make_call(number, arguments.data());
}

long pointer(const void* to) { return reinterpret_cast<long>(to); }

// Of lines that were seen, each once, whoever comes to the end first.
void write_lines() {
  for (size_t entry = 1; entry < lines.size(); ++entry)
    if (seen[entry].exchange(false))
      make_call(SYS_write, {record_fd, pointer(lines[entry].data()), static_cast<long>(lines[entry].size())});
}

// The kernel's signal sets: a word.
constexpr long kSetSize = sizeof(uint64_t);
constexpr uint64_t bit_of(int number) { return uint64_t{1} << (number - 1); }

// The mask that counts is the one that the return from this handler sets. SIGSYS is never blocked: calls of a
// thread that is about to start or to end, which blocks all signals, are to be seen too.
long change_mask(CallArguments arguments, ucontext_t& context) {
  uint64_t set = 0;
  if (arguments[1] != 0) {
    std::memcpy(&set, reinterpret_cast<const void*>(arguments[1]), sizeof set);
    if (arguments[0] != SIG_UNBLOCK) set &= ~bit_of(SIGSYS);
    arguments[1] = pointer(&set);
  }
  const long result = make_call(SYS_rt_sigprocmask, arguments);
  uint64_t now = 0;
  if (make_call(SYS_rt_sigprocmask, {SIG_BLOCK, 0, pointer(&now), kSetSize}) == 0)
    std::memcpy(&context.uc_sigmask, &now, sizeof now);
  return result;
}

void on_recorded(int entry, int number, ucontext_t& context) {
  seen[static_cast<size_t>(entry)].store(true, std::memory_order_relaxed);
  auto& registers = context.uc_mcontext.gregs;
  const CallArguments arguments{registers[REG_RDI], registers[REG_RSI], registers[REG_RDX],
                                registers[REG_R10], registers[REG_R8],  registers[REG_R9]};
  if (const int error = errors[static_cast<size_t>(entry)]; error != 0) {
    registers[REG_RAX] = -error;
    return;
  }
  switch (number) {
    case SYS_rt_sigreturn:
      // What it is to return to lies on the thread's own stack: it does it once more, from another place.
      registers[REG_RIP] = pointer(reinterpret_cast<const void*>(&snug_return));
      return;
    case SYS_rt_sigprocmask:
      registers[REG_RAX] = change_mask(arguments, context);
      return;
    case SYS_exit_group:
      write_lines();
      break;
    default:
      break;
  }
  registers[REG_RAX] = make_call(number, arguments);
}

void on_call(int signal, siginfo_t* info, void* context) {
  constexpr int kBySeccomp = 1;  // asm-generic/siginfo.h: SYS_SECCOMP
  const int entry = info->si_code == kBySeccomp ? info->si_errno : 0;
  if (entry <= 0 || static_cast<size_t>(entry) >= lines.size()) return on_others(signal, info, context);
  on_recorded(entry, info->si_syscall, *static_cast<ucontext_t*>(context));
}

void list_entries() {
  // Number 0 is that of all that is forbidden.
  lines.assign(1, "");
  for (size_t i = 0; i < kThreadKinds; ++i) {
    const auto kind = static_cast<ThreadKind>(i);
    const auto rules = thread_rules(kind);
    first_entry[i] = static_cast<uint16_t>(lines.size());
    for (const CallEntry& entry : entries_of(rules)) {
      if (kind == ThreadKind::kBuilder && entry.rule->number == SYS_clone)
        clone_entry = static_cast<uint16_t>(lines.size());
      SNUG_ASSERT(lines.size() < kEntries && entry.rule->error <= UINT8_MAX);
      errors[lines.size()] = static_cast<uint8_t>(entry.rule->error);
      lines.push_back(record_line(kind, entry) + "\n");
    }
  }
}

// asm/signal.h, whose names are those of the C library's too.
struct KernelAction {
  void (*handler)(int, siginfo_t*, void*);
  unsigned long flags;
  void (*restorer)();
  uint64_t mask;
};

}  // namespace

std::string record_line(ThreadKind kind, const CallEntry& entry) {
  static constexpr std::array kWords{"vcpu", "loop", "device", "share", "builder"};
  std::string line = fmt::format("{} {}", kWords[static_cast<size_t>(kind)], call_name(entry.rule->number));
  for (const ArgumentTest& test : entry.arguments) {
    if (test.kind == ArgumentTest::Kind::kOneOf)
      line += fmt::format(" {}={:#x}", test.argument, test.values.front());
    if (test.kind == ArgumentTest::Kind::kEqual64)
      line += fmt::format(" {}={:#x}", test.argument, test.value);
  }
  return line;
}

Result<void> record_calls(int fd) {
  struct sigaction known {};
  if (::sigaction(SIGSYS, nullptr, &known) != 0) return fail_errno(errno, "sigaction");
  SNUG_ASSERT((known.sa_flags & SA_SIGINFO) != 0);
  on_others = known.sa_sigaction;
  list_entries();
  record_fd = fd;
  // The C library would have it return by a call of its own. Nothing is blocked meanwhile: a call that waits
  // is to be interrupted by what interrupts it otherwise.
  constexpr unsigned long kRestorer = 0x04000000;  // asm/signal.h: SA_RESTORER
  const KernelAction action{on_call, static_cast<unsigned>(SA_SIGINFO | SA_NODEFER) | kRestorer, snug_return,
                            0};
  if (::syscall(SYS_rt_sigaction, SIGSYS, &action, nullptr, kSetSize) != 0)
    return fail_errno(errno, "sigaction");
  return {};
}

bool records_calls() { return record_fd >= 0; }

Result<std::vector<sock_filter>> recorded_filter(ThreadKind kind, pid_t process) {
  const auto address = [](const char* of) { return reinterpret_cast<uint64_t>(of); };
  return build_recorded_filter(thread_rules(kind), process,
                               {.made_at = address(snug_call_made),
                                .returned_at = address(snug_returned),
                                .first = first_entry[static_cast<size_t>(kind)]});
}

void record_beginning(ThreadKind kind) {
  if (!records_calls()) return;
  if (kind == ThreadKind::kBuilder) builder_is_there = true;
  // Whoever begins behind it was started by it, by the one call that is made without the handler.
  if ((kind == ThreadKind::kVcpu || kind == ThreadKind::kDevice) && builder_is_there)
    seen[clone_entry] = true;
}

}  // namespace snug::jail
