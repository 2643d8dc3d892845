// The commands that a machine is started for: run one after the other through the guest's agent, their
// streams being this process's own.
//
// Thread: the loop's.
#pragma once

#include <chrono>
#include <csignal>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vmm/agent/agent_request.h"
#include "vmm/run/command_session.h"
#include "vmm/run/health_check.h"

namespace snug {

struct CommandPlan {
  struct Command {
    std::vector<std::string> words;
    std::string title;  // as a person would write it
  };
  std::vector<Command> commands;  // none: the machine is not started for any
  std::vector<std::string> variables;
  std::string folder;
  std::string user;
  int stop_signal = SIGTERM;  // what the command gets when it is to end
  bool interactive = false;   // as CommandSession::Options has them
  bool tty = false;
  bool keep_output = false;  // results have what was printed
  // The first one runs already in the guest, which goes on from a snapshot, and those before it are over: the
  // first of them that failed had this status.
  bool goes_on = false;
  int status_before = 0;
  std::optional<HealthPlan> health;  // how it is seen that what runs is well, commands or not
};

// The end of what a command has printed. Bounded.
struct KeptOutput {
  std::string text;
  uint64_t left_out = 0;  // bytes before it
  void add(std::string_view bytes, size_t most);
};

struct CommandResult {
  std::string title;
  int status = 0;       // as a shell shows it
  std::string message;  // why there is no status of its own; or ""
  std::chrono::steady_clock::duration duration{};
  KeptOutput output, errors;  // of a plan that keeps them
};

class GuestCommands {
 public:
  // A stream to a port of the guest, or an errno. Later, on the loop.
  using Connected = std::function<void(UniqueFd stream, int error)>;
  using Connect = std::function<void(uint32_t port, Connected connected)>;
  // All have run, or one has been lost. Once, on the loop, from none of our functions.
  using Ended = std::function<void(int status, std::string message)>;
  // What they print, both outputs as one.
  using Printed = std::function<void(std::string_view)>;

  static constexpr size_t kKept = 64 << 10;        // bytes of each output of a command
  static constexpr size_t kKeptOfAll = 16 << 20;   // of all commands, but for
  static constexpr size_t kKeptAtLeast = 1 << 10;  // of each output

  // `plan` and `streams` are the caller's. `printed`: takes what would else go to our own stdout and stderr;
  // may be empty.
  GuestCommands(EventLoop& loop, const CommandPlan& plan, const CommandStreams& streams, Connect connect,
                Ended ended, Printed printed);

  // The first one, on the stream on which the guest is asked for something else before it, ahead of
  // agent_ready(). False, and the stream is gone: it cannot be sent so. If `before` fails it has not begun,
  // and is as it was.
  bool start_with(UniqueFd stream, ExecBefore before);
  // Called when the guest has begun a command.
  void on_started(std::function<void()> started) { started_ = std::move(started); }
  // What start_with() has begun is not to be: the guest boots.
  void forget();
  // The agent can take commands. Again: the guest has been started anew, which loses the one that ran.
  void agent_ready();
  bool agent_was_ready() const { return ready_; }
  // Whether all have ended.
  bool over() const { return over_; }
  // What a guest would go on with that is saved now.
  struct Progress {
    size_t over = 0;       // so many of the plan
    bool running = false;  // the next one
    int status = 0;        // of the first that failed
  };
  Progress progress() const;
  // The one that runs, and those that follow, outlive their connection to us: the guest is to be saved.
  void keep();
  // The guest is gone: what runs is lost, and what its outputs still hold is written before that is told.
  void guest_gone(const std::string& why);
  // None is begun: the guest is not what they need.
  void give_up(const std::string& why) { guest_gone(why); }
  // False: nothing runs that it could be passed on to.
  bool signal(int number);
  void window_changed();
  void suspend_terminal();
  void resume_terminal();

  const std::vector<CommandResult>& results() const { return results_; }

 private:
  void next();
  void take_up();
  void begun();
  void start(UniqueFd stream, int error);
  Result<void> start_session(UniqueFd stream, ExecBefore before);
  void take_output(uint8_t channel, std::string_view bytes);
  void on_end(ExecEnd end);
  void finish();

  EventLoop& loop_;
  const CommandPlan& plan_;
  const CommandStreams& streams_;
  Connect connect_;
  Ended ended_;
  Printed printed_;
  std::function<void()> started_;
  bool ready_ = false;
  bool ahead_ = false;  // the first one has been sent already
  bool over_ = false;
  std::string gone_;  // why the guest is
  std::unique_ptr<CommandSession> session_;
  EventLoop::Timer keep_;     // when the one that runs is kept
  EventLoop::Timer take_up_;  // the next try
  std::chrono::steady_clock::time_point began_;
  KeptOutput output_, errors_;  // of the command that runs
  size_t kept_ = 0;             // bytes, of those that have ended
  std::vector<CommandResult> results_;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace snug
