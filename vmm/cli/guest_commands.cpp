#include "vmm/cli/guest_commands.h"

#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>

#include "vmm/agent/copy.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/machine_socket.h"
#include "vmm/cli/machines.h"
#include "vmm/cli/put.h"
#include "vmm/control/control_client.h"
#include "vmm/control/vm_directory.h"
#include "vmm/core/event_loop.h"
#include "vmm/host/signals.h"
#include "vmm/run/command_session.h"
#include "vmm/run/runner.h"

namespace snug::cli {
namespace {

constexpr const char* kWaitHelp =
    "How long to wait for the agent in the guest; 0: not at all, none: for ever. "
    "Default: as long as the guest boots";

Result<AgentPatience> patience_of(const std::string& wait) {
  return wait.empty() ? AgentPatience{} : parse_patience(wait);
}

Result<ExecEnd> run_in_guest(const ExecArguments& arguments) {
  auto loop = SNUG_TRY(EventLoop::create());
  protocol::ExecRequest request;
  request.arguments = arguments.command;
  request.variables = arguments.variables;
  request.folder = arguments.folder;
  request.user = arguments.user;
  for (const std::string& variable : request.variables)
    if (variable.find('=') == std::string::npos || variable.starts_with('='))
      return fail("--env: expected NAME=VALUE, got '{}'", variable);

  const AgentPatience patience = SNUG_TRY(patience_of(arguments.wait));
  // Until then a signal ends us as any program.
  auto connection = SNUG_TRY(connect_to_agent(arguments.machine, patience));
  std::optional<ExecEnd> end;
  std::unique_ptr<CommandSession> session;
  // The command gets the signals; the second that would end it ends us.
  bool asked_to_end = false;
  EndingWish wish;
  auto signals = SNUG_TRY(SignalWatch::create(
      *loop, {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGTSTP, SIGCONT},
      [&](int number) {
        if (number == SIGWINCH) return session->window_changed();
        if (number == SIGTSTP) {
          session->suspend_terminal();
          ::raise(SIGSTOP);
          return;  // what follows is SIGCONT's
        }
        // Whoever stopped us: in the foreground of the terminal or, so far, in the background.
        if (number == SIGCONT) {
          if (is_own_terminal(STDIN_FILENO)) session->resume_terminal();
          return;
        }
        const bool ends = number == SIGTERM || number == SIGINT || number == SIGHUP;
        if (ends && wish.is_the_same()) return;
        if (ends && (asked_to_end || !session->started())) {
          end = ExecEnd{.kind = ExecEnd::Kind::kEnded, .status = {true, static_cast<uint8_t>(number)}};
          return loop->stop();
        }
        asked_to_end = asked_to_end || ends;
        session->signal(number);
      }));
  const CommandStreams streams = CommandStreams::open();
  session = SNUG_TRY(CommandSession::start(
      *loop, std::move(connection), std::move(request),
      {.streams = &streams, .interactive = arguments.interactive, .tty = arguments.tty}, [&](ExecEnd how) {
        end = std::move(how);
        loop->stop();
      }));
  SNUG_TRY(loop->run());
  return *end;
}

// A command may be lost because its machine is: says how that ended. The status is the machine's, when that
// says why there is none of the command.
int status_of_lost(const std::string& machine) {
  constexpr int kEndMs = 10'000;
  const auto vm = find_machine(machine);
  if (!vm) return kStatusFailure;
  // One that answers has not ended; one that does not is about to.
  if (vm->alive && (ask_machine(*vm, "GET", "/v1/vm") || !wait_for_end(*vm, kEndMs))) return kStatusFailure;
  // One that was not to be kept has left nothing to tell.
  const auto ended = find_machine(machine);
  if (!ended || !ended->exit_status) return kStatusFailure;
  const int status = *ended->exit_status;
  put(stderr, "snug: {} has ended (status {}){}\n", machine, status,
      ended->end_message.empty() ? "" : ": " + ended->end_message);
  return status == kStatusPanic || status == kStatusTimeout ? status : kStatusFailure;
}

}  // namespace

int exec(const ExecArguments& arguments) {
  const auto end = run_in_guest(arguments);
  if (!end) return fail_command(end.error());
  if (end->kind == ExecEnd::Kind::kEnded) {
    if (!end->stream_error.empty()) put(stderr, "snug: {}\n", end->stream_error);
    return end->shell_status();
  }
  put(stderr, "snug: {}\n", end->error.text);
  return end->kind == ExecEnd::Kind::kLost ? status_of_lost(arguments.machine) : end->shell_status();
}

int shell(ExecArguments arguments) {
  arguments.interactive = true;
  arguments.tty = true;
  arguments.command = {"sh", "-c", "exec \"${SHELL:-/bin/sh}\" -l"};
  return exec(arguments);
}

namespace {

struct Place {
  std::optional<std::string> machine;
  std::string path;
};

bool is_socket(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode);
}

// A path here may hold a colon behind a slash: ./a:b. What stands before a colon may be the path of a guest's
// socket, too.
Place place_of(const std::string& text) {
  const size_t colon = text.find(':');
  for (size_t at = colon; at != std::string::npos; at = text.find(':', at + 1))
    if (is_socket(text.substr(0, at))) return {text.substr(0, at), text.substr(at + 1)};
  if (colon == std::string::npos || colon == 0 || text.find('/') < colon) return {std::nullopt, text};
  return {text.substr(0, colon), text.substr(colon + 1)};
}

// What could not be copied, named as it comes up to here and counted from there on: a guest may have any
// number of it.
class CopyReport {
 public:
  void add(const protocol::Problem& problem) {
    ++(problem.left_out ? left_out_ : failed_);
    if (failed_ + left_out_ <= kNamed) put(stderr, "snug: {}\n", problem.text);
  }
  int status() const {
    if (failed_ + left_out_ > kNamed) put(stderr, "snug: and {} more\n", failed_ + left_out_ - kNamed);
    if (failed_ > 0) put(stderr, "snug: the rest is copied; problems: {}\n", failed_);
    return failed_ > 0 ? 1 : 0;
  }

 private:
  static constexpr size_t kNamed = 1000;
  size_t failed_ = 0;
  size_t left_out_ = 0;
};

// The signal that asked a copy to stop. Only a handler's own variable can be reached by it.
volatile sig_atomic_t g_stop_signal = 0;

// Until a copy has put its things in order; the second wish ends it at once. timeout(1) signals twice, and
// that is one (EndingWish).
void on_stop_signal(int number) {
  static timespec first;
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  if (g_stop_signal == 0) {
    first = now;
    g_stop_signal = number;
    return;
  }
  const auto between =
      std::chrono::seconds(now.tv_sec - first.tv_sec) + std::chrono::nanoseconds(now.tv_nsec - first.tv_nsec);
  if (between < EndingWish::kSame) return;
  ::signal(number, SIG_DFL);
  ::raise(number);
}

void stop_on_signals() {
  struct sigaction action {};
  action.sa_handler = on_stop_signal;
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(number, &action, nullptr);
}

Result<void> copy_between(const Place& from, const Place& to, const CopyOptions& options,
                          const AgentPatience& patience) {
  if (from.machine.has_value() == to.machine.has_value())
    return fail_with_hint("one of the two paths is to be in a guest",
                          "snug cp FILE NAME:/tmp, or the reverse");
  const std::string& in_guest = from.machine ? from.path : to.path;
  if (!in_guest.starts_with('/'))
    return fail("paths in the guest begin with a slash, '{}' does not", in_guest);
  auto connection = SNUG_TRY(connect_to_agent(from.machine ? *from.machine : *to.machine, patience));
  if (!from.machine) return copy_to_guest(std::move(connection), from.path, to.path, options);
  stop_on_signals();
  return copy_from_guest(std::move(connection), from.path, to.path, options);
}

}  // namespace

int copy(const CopyArguments& arguments) {
  const auto patience = patience_of(arguments.wait);
  if (!patience) return fail_command(patience.error());
  CopyReport report;
  CopyOptions options;
  options.owners = arguments.owners;
  options.on_problem = [&](const protocol::Problem& problem) { report.add(problem); };
  options.is_stopped = [] { return g_stop_signal != 0; };
  const auto done = copy_between(place_of(arguments.from), place_of(arguments.to), options, *patience);
  // As it would have ended had it not waited.
  if (!done && g_stop_signal != 0) {
    ::signal(g_stop_signal, SIG_DFL);
    ::raise(g_stop_signal);
  }
  return done ? report.status() : fail_command(done.error());
}

void add_guest_commands(CommandSet& commands, const std::vector<std::string>& behind) {
  const auto given = std::make_shared<ExecArguments>();
  const auto describe = [given](Command command) {
    command.argument("NAME", given->machine, "The machine").required();
    command.option("-e,--env", given->variables, "A variable of its environment")
        .placeholder("NAME=VALUE")
        .one_each();
    command.option("-w,--workdir", given->folder, "The folder in which it runs").placeholder("DIR");
    command.option("-u,--user", given->user, "The guest's user: NAME[:GROUP] or UID[:GID]")
        .placeholder("USER");
    command.option("--wait", given->wait, kWaitHelp).placeholder("TIME");
  };
  commands.add(
      "exec", "Run a command in a guest that runs: snug exec NAME -- COMMAND",
      [given, describe](Command command) {
        describe(command);
        command.flag("-i,--interactive", given->interactive, "Give it our stdin");
        command.flag("-t,--tty", given->tty, "On a terminal; Ctrl-] three times leaves it");
        command.takes_command();
      },
      [given, &behind] {
        given->command = behind;
        if (!behind.empty()) return exec(*given);
        put(stderr, "snug: what is to be run? snug exec NAME -- COMMAND\n");
        return kStatusFailure;
      });
  commands.add("shell", "A shell in a guest that runs, on this terminal", describe,
               [given] { return shell(*given); });
  const auto copied = std::make_shared<CopyArguments>();
  commands.add(
      "cp", "Copy a file or a folder to or from a guest that runs",
      [copied](Command command) {
        command.flag("-a,--archive", copied->owners, "Keep owners too, by number; here that takes root");
        command.argument("FROM", copied->from, "PATH here, or NAME:PATH in the guest").required();
        command.argument("TO", copied->to, "NAME:PATH in the guest, or PATH here").required();
        command.option("--wait", copied->wait, kWaitHelp).placeholder("TIME");
      },
      [copied] { return copy(*copied); });
}

}  // namespace snug::cli
