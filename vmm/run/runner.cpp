#include "vmm/run/runner.h"

#include <signal.h>
#include <unistd.h>

#include "vmm/base/log.h"
#include "vmm/base/setup_memory.h"

namespace snug {
namespace {

// A guest that ends before has no use for it: what it dropped it would soon touch again.
constexpr std::chrono::seconds kSettled{1};

}  // namespace

Result<std::unique_ptr<Runner>> Runner::create(const kvm::Kvm& kvm, const Spec& spec, RunnerOptions options) {
  std::unique_ptr<Runner> runner(new Runner(std::move(options)));
  const RunnerOptions& chosen = runner->options_;
  // A signal ends us as any program, as long as we wait for what comes through a pipe.
  runner->ends_ = SNUG_TRY(HostEnds::open(spec));
  runner->loop_ = SNUG_TRY(EventLoop::create());
  SNUG_TRY(runner->watch_signals());
  runner->settled_ = SNUG_TRY(runner->loop_->timer(drop_setup_memory));
  HostEnds::Options ends;
  ends.directory = chosen.directory;
  ends.commands = chosen.commands != nullptr;
  ends.background = chosen.background;
  ends.on_quit = [r = runner.get()] { r->life_->finish(RunState::kKilled, 0, "quit"); };
  SNUG_TRY(runner->ends_->open_streams(spec, *runner->loop_, ends));
  runner->life_ = SNUG_TRY(
      LifeCycle::create({kvm, spec, *runner->loop_, *runner->ends_, chosen.commands, chosen.ending}));
  SNUG_TRY(runner->serve_control(spec));
  return runner;
}

// None is heard before the loop runs.
Result<void> Runner::watch_signals() {
  signals_ = SNUG_TRY(SignalWatch::create(*loop_, {SIGTERM, SIGINT, SIGHUP, SIGTSTP, SIGCONT},
                                          [this](int number) { on_signal(number); }));
  if (options_.commands == nullptr) return {};
  command_signals_ =
      SNUG_TRY(SignalWatch::create(*loop_, {SIGUSR1, SIGUSR2, SIGQUIT, SIGWINCH}, [this](int number) {
        GuestCommands& commands = *life_->commands();
        if (number == SIGWINCH) return commands.window_changed();
        if (!commands.signal(number) && number == SIGQUIT) on_signal(number);
      }));
  return {};
}

Result<void> Runner::serve_control(const Spec& spec) {
  if (options_.directory == nullptr) return {};
  auto listening = SNUG_TRY(options_.directory->listen("control.sock"));
  target_ = std::make_unique<MachineControl>(spec, *options_.directory, *ends_, *life_);
  control_ = SNUG_TRY(ControlServer::create(*loop_, std::move(listening), *target_));
  return {};
}

const std::vector<CommandResult>& Runner::command_results() const {
  static const std::vector<CommandResult> none;
  return life_->commands() != nullptr ? life_->commands()->results() : none;
}

Result<RunReport> Runner::run() {
  const std::string& pty = ends_->console->pty_path();
  if (!pty.empty()) log_line(LogLevel::kWarn, "the console is " + pty);
  SNUG_TRY(life_->begin());
  if (options_.started) options_.started();
  settled_.arm(kSettled);
  SNUG_TRY(loop_->run());
  RunReport report = life_->end();
  if (options_.directory != nullptr) options_.directory->record_end(report.exit_status, report.message);
  if (control_) control_->finish(report.exit_status, report.message);
  return report;
}

void Runner::on_signal(int number) {
  if (number == SIGTSTP) return on_suspend();
  if (number == SIGCONT) return on_continue();
  if (!wish_.is_the_same()) life_->on_ending_signal(number);
}

// What follows is SIGCONT's.
void Runner::on_suspend() {
  ends_->console->suspend_terminal();
  if (GuestCommands* commands = life_->commands()) commands->suspend_terminal();
  ::raise(SIGSTOP);
}

// This process was stopped, by Ctrl-Z or from outside, and goes on; in the foreground of its terminal or, so
// far, in the background. (What the guest's watchdogs are told: VcpuThreads.)
void Runner::on_continue() {
  if (::isatty(STDIN_FILENO) == 0 || is_own_terminal(STDIN_FILENO)) {
    if (GuestCommands* commands = life_->commands()) commands->resume_terminal();
    ends_->console->resume_terminal();
  }
  const Machine* machine = life_->machine();
  if (machine != nullptr && machine->state() == RunState::kRunning) life_->set_guest_clock();
}

}  // namespace snug
