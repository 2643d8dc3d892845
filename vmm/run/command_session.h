// A command in the guest whose streams are this process's own: stdin, stdout, stderr, and its terminal.
//
// Thread: the loop's.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>

#include "vmm/agent/exec_session.h"
#include "vmm/base/result.h"
#include "vmm/host/terminal.h"

namespace snug {

// This process's own streams, opened once more so that they never block: other processes share the first
// ones.
struct CommandStreams {
  UniqueFd input, output, errors;  // none: closed
  static CommandStreams open();
};

class CommandSession {
 public:
  struct Options {
    const CommandStreams* streams = nullptr;  // the caller's: ours
    bool takes_up = false;                    // it is one that was kept: `request` is of no account
    bool interactive = false;                 // the command gets our stdin; otherwise nothing
    bool tty = false;                         // it runs on a terminal, and ours, if there is one, becomes raw
    bool prints_here = true;                  // its outputs are ours; otherwise only `printed` has them
    // What it prints, by its channel (protocol::kOutput, kErrors); may be empty.
    std::function<void(uint8_t channel, std::string_view)> printed;
    std::function<void()> started;  // the guest has begun it; may be empty
  };
  // `request`: the terminal's type and size are filled in. `connection`: a stream to the agent.
  // `ended`: once, our terminal itself again; the session may be destroyed then.
  static Result<std::unique_ptr<CommandSession>> start(EventLoop& loop, UniqueFd connection,
                                                       protocol::ExecRequest request, Options options,
                                                       std::function<void(ExecEnd)> ended,
                                                       ExecBefore before = {});

  bool started() const { return session_->started(); }
  void signal(int number) { session_->signal(number); }
  void keep() { session_->keep(); }
  void abandon(const std::string& why) { session_->abandon(why); }
  // SIGWINCH.
  void window_changed();
  // Stop and continue from outside (SIGTSTP, SIGCONT).
  void suspend_terminal();
  void resume_terminal();

 private:
  CommandSession() = default;
  void on_input(std::string_view bytes);

  std::optional<RawTerminal> terminal_;
  std::unique_ptr<ExecSession> session_;
  int escapes_ = 0;  // Ctrl-] typed in a row
  std::chrono::steady_clock::time_point first_escape_;
};

// Of our terminal; nothing when none of our streams is one.
std::optional<protocol::WindowSize> window_size();

}  // namespace snug
