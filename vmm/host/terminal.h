// Raw mode on a terminal, put back in every way a process can end short of SIGKILL.
// Thread: the loop's; the restore on a fatal signal runs in the handler of whichever thread got it.
#pragma once

#include <termios.h>

#include <optional>

#include "vmm/base/result.h"

namespace snug {

// What the terminal still does to what is printed on it.
enum class TerminalOutput {
  kProcessed,  // line ends and all, as before: messages of our own are printed there too
  kUntouched,  // nothing: it comes from another terminal, which has done that already
};

class RawTerminal {
 public:
  // Switches `fd` (a tty, kept open by the caller for this object's life) to raw mode: no echo, no line
  // editing, no signals from keys. One per process: the state that a signal
  // handler needs is static. Installs handlers for the fatal signals and the abort hook.
  static Result<RawTerminal> enter(int fd, TerminalOutput output = TerminalOutput::kProcessed);
  RawTerminal(RawTerminal&& other) noexcept : active_(other.active_) { other.active_ = false; }
  RawTerminal& operator=(RawTerminal&&) = delete;
  ~RawTerminal();

  // For a stop from outside (SIGTSTP): the old settings, and raw again after SIGCONT.
  void leave();
  void reenter();

 private:
  explicit RawTerminal(bool active) : active_(active) {}
  bool active_;
};

// Whether `fd` is a terminal that this process may read and change now (it is in the foreground).
bool is_own_terminal(int fd);
// For a process that cannot see for itself, since the terminal's jobs are in another pid namespace: what
// is_own_terminal() says from now on of every terminal.
void tell_own_terminal(bool own);

}  // namespace snug
