// The part of a run that is about the commands it is started for.
#include <signal.h>
#include <string.h>

#include "vmm/base/log.h"
#include "vmm/machine/runner.h"

namespace snug {
namespace {

// A guest that has not called by then hangs, or has nothing in it that could.
constexpr std::chrono::minutes kAgentPatience{2};
constexpr std::chrono::seconds kRequestPatience{5};

// Whether the guest keeps something that it has to write down before it goes.
bool keeps_state(const Spec& spec) {
  for (const DiskSpec& disk : spec.disks)
    if (!disk.readonly && !disk.ephemeral) return true;
  return false;
}

}  // namespace

Result<void> Runner::open_commands() {
  if (options_.commands == nullptr) return {};
  command_signals_ =
      SNUG_TRY(SignalWatch::create(*loop_, {SIGUSR1, SIGUSR2, SIGQUIT, SIGWINCH}, [this](int number) {
        if (number == SIGWINCH) return commands_->window_changed();
        if (!commands_->signal(number) && number == SIGQUIT) on_signal(number);
      }));
  auto connect = [this](GuestCommands::Connected connected) {
    vsock_->connect(protocol::kAgentPort, std::move(connected));
  };
  GuestCommands::Printed printed;
  if (options_.background) {
    output_log_ = SNUG_TRY(BoundedLog::create(options_.directory->fd(), "output.log"));
    printed = [this](std::string_view bytes) { output_log_->write(bytes); };
  }
  commands_ = std::make_unique<GuestCommands>(
      *loop_, *options_.commands, std::move(connect),
      [this](int status, std::string message) { on_commands_end(status, std::move(message)); },
      std::move(printed));
  return {};
}

const std::vector<CommandResult>& Runner::command_results() const {
  static const std::vector<CommandResult> none;
  return commands_ ? commands_->results() : none;
}

// Whoever wants something of the agent may ask how far the guest is.
void Runner::listen_for_agent() {
  vsock_->listen(protocol::kCallPort, [this](UniqueFd) { on_agent_call(); });
}

void Runner::on_agent_call() {
  log_debug("the guest's agent is ready");
  agent_called_in_ = report_.boots;
  // In user space, whether or not it has opened a console.
  boot_timeout_.disarm();
  if (commands_) commands_->agent_ready();
}

const char* Runner::agent_state() const {
  if (!vsock_) return "none";
  if (agent_called_in_ == report_.boots && report_.boots != 0) return "ready";
  const auto limit = spec_.boot_timeout.value_or(kAgentPatience);
  return std::chrono::steady_clock::now() - boot_began_ < limit ? "awaited" : "silent";
}

TimeLimit Runner::boot_limit() const {
  if (commands_ && !spec_.boot_timeout) return kAgentPatience;
  return spec_.boot_timeout;
}

// The guest is gone and its command's end is not known. What it has written so far is still passed on.
void Runner::end_without_command(Ending ending) {
  if (ending_ || finished_) return;
  if (ending.detail.empty() && !commands_->agent_was_ready()) ending.detail = console_lines();
  ending_ = std::move(ending);
  // Posted: the machine is on the stack.
  loop_->post([this] {
    boot_timeout_.disarm();
    stop_machine(ending_->state);
    commands_->guest_gone(ending_->message);
  });
}

// By itself, in an orderly way.
void Runner::on_guest_end(RunState state, const std::string& what) {
  if (!commands_under_way()) return finish(state, command_status_, command_message_);
  Ending ending{state, machine_->guest_status(), {}, {}};
  if (ending.exit_status == 0) {
    ending.exit_status = kStatusFailure;
    ending.message = fmt::format("{} before its command's status was known; {}", what, last_console_line());
  }
  end_without_command(std::move(ending));
}

void Runner::on_commands_end(int status, std::string message) {
  if (ending_) return finish(ending_->state, ending_->exit_status, ending_->message, ending_->detail);
  command_status_ = status;
  command_message_ = std::move(message);
  // Nothing of a throw-away guest is worth the time of a shutdown.
  if (!keeps_state(spec_)) return finish(RunState::kPoweredOff, command_status_, command_message_);
  power_off_by_agent();
}

void Runner::power_off_by_agent() {
  if (spec_.grace_period) grace_.arm(*spec_.grace_period);
  const auto give_up = [this](const std::string& why) {
    log_warn("power the guest off: {}; stopped", why);
    finish(RunState::kKilled, command_status_, command_message_);
  };
  vsock_->connect(protocol::kAgentPort, [this, give_up](UniqueFd stream, int error) {
    if (error != 0) return give_up(errno_text(error));
    std::string frame;
    put_power(frame, protocol::PowerAction::kOff);
    auto request = AgentRequest::start(*loop_, std::move(stream), frame, kRequestPatience,
                                       [this, give_up](const Result<void>& done) {
                                         // One that powers off may be gone before its answer is.
                                         if (!done && machine_) give_up(done.error().message);
                                       });
    if (!request) return give_up(request.error().message);
    power_off_ = std::move(*request);
  });
}

// After a pause: the guest's time of day is not to depend on how its clock source takes so long a leap. A
// guest without an agent keeps the time it has.
void Runner::set_guest_clock() {
  if (!vsock_) return;
  vsock_->connect(protocol::kAgentPort, [this](UniqueFd stream, int error) {
    if (error != 0) return log_debug("the guest's clock is not set: {}", errno_text(error));
    using std::chrono::nanoseconds;
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    std::string frame;
    protocol::put_set_time(frame,
                           static_cast<uint64_t>(std::chrono::duration_cast<nanoseconds>(now).count()));
    auto request =
        AgentRequest::start(*loop_, std::move(stream), frame, kRequestPatience, [](const Result<void>& done) {
          if (!done) log_info("set the guest's clock: {}", done.error().message);
        });
    if (request) set_time_ = std::move(*request);
  });
}

// The first one that would end us is the command's; without one, there is nothing to wait for.
void Runner::on_command_signal(int number) {
  const char* name = ::sigabbrev_np(number);
  if (!commands_->signal(number))
    return finish(RunState::kKilled, 128 + number, fmt::format("stopped by SIG{}", name));
  log_info("SIG{} passed on to the command (a second signal stops the guest at once)", name);
  ending_signal_ = number;
}

}  // namespace snug
