#include "vmm/host/terminal.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>

#include "vmm/base/assertion.h"

namespace snug {
namespace {

// What a signal handler can reach: set before raw mode begins, never changed while `raw` is true.
struct SavedTerminal {
  int fd = -1;
  termios settings{};
  TerminalOutput output = TerminalOutput::kProcessed;
  std::atomic<bool> raw = false;
};
SavedTerminal saved;

// 1: our job is in the foreground, 0: it is not, -1: this process can see for itself.
std::atomic<int> told_own = -1;

constexpr std::array kFatalSignals{SIGSEGV, SIGBUS,  SIGILL,  SIGFPE, SIGABRT,
                                   SIGQUIT, SIGTRAP, SIGXCPU, SIGXFSZ};

void restore() noexcept {
  if (saved.raw.exchange(false)) ::tcsetattr(saved.fd, TCSANOW, &saved.settings);
}

// SA_RESETHAND is set: raising again ends the process as the signal would have.
void on_fatal_signal(int number) {
  restore();
  ::raise(number);
}

void restore_on_fatal_signals() {
  for (const int number : kFatalSignals) {
    struct sigaction action {};
    action.sa_handler = on_fatal_signal;
    action.sa_flags = static_cast<int>(SA_RESETHAND | SA_NODEFER);
    ::sigaction(number, &action, nullptr);
  }
}

void apply_raw() {
  termios raw = saved.settings;
  ::cfmakeraw(&raw);
  if (saved.output == TerminalOutput::kProcessed) raw.c_oflag = saved.settings.c_oflag;
  saved.raw = true;
  ::tcsetattr(saved.fd, TCSANOW, &raw);
}

}  // namespace

Result<RawTerminal> RawTerminal::enter(int fd, TerminalOutput output) {
  SNUG_ASSERT(!saved.raw);
  if (::tcgetattr(fd, &saved.settings) != 0) return fail_errno(errno, "terminal settings");
  saved.fd = fd;
  saved.output = output;
  set_abort_hook(restore);
  // Where another process knows of the terminal, it puts it back.
  if (told_own < 0) restore_on_fatal_signals();
  apply_raw();
  return RawTerminal(true);
}

RawTerminal::~RawTerminal() {
  if (!active_) return;
  restore();
  set_abort_hook(nullptr);
}

void RawTerminal::leave() { restore(); }
void RawTerminal::reenter() {
  // Whoever used the terminal meanwhile may have changed it. (Not left, since nothing told of the stop: what
  // it was before is still known.)
  if (!saved.raw) ::tcgetattr(saved.fd, &saved.settings);
  apply_raw();
}

void tell_own_terminal(bool own) { told_own = own ? 1 : 0; }

bool is_own_terminal(int fd) {
  if (told_own >= 0) return told_own == 1 && ::isatty(fd) == 1;
  return ::isatty(fd) == 1 && ::tcgetpgrp(fd) == ::getpgrp();
}

}  // namespace snug
