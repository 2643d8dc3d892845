// The part of a machine's life that is about the commands it is started for.
#include <string.h>

#include "vmm/base/log.h"
#include "vmm/core/touched_pages.h"
#include "vmm/run/life_cycle.h"

namespace snug {
namespace {

// Whether the guest keeps something that it has to write down before it goes.
bool keeps_state(const Spec& spec) {
  for (const DiskSpec& disk : spec.disks)
    if (!disk.readonly && !disk.ephemeral) return true;
  return false;
}

}  // namespace

void LifeCycle::open_commands() {
  if (environment_.commands == nullptr) return;
  GuestCommands::Printed printed;
  if (ends_.output_log) printed = [log = &*ends_.output_log](std::string_view bytes) { log->write(bytes); };
  commands_ = std::make_unique<GuestCommands>(
      loop_, *environment_.commands, ends_.command_streams,
      [this](uint32_t port, GuestCommands::Connected connected) {
        agent_->connect(std::move(connected), port);
      },
      [this](int status, std::string message) { on_commands_end(status, std::move(message)); },
      std::move(printed));
  commands_->on_started([this] { note_touched(); });
  if (agent_)
    agent_->when_it_goes_on([this](UniqueFd stream, ExecBefore before) {
      return commands_->start_with(std::move(stream), std::move(before));
    });
}

// By the agent, whether or not the machine is started for a command.
Result<void> LifeCycle::open_health() {
  if (environment_.health == nullptr || !agent_) return {};
  health_ = SNUG_TRY(HealthCheck::create(
      loop_, *environment_.health,
      [this](HealthCheck::Connected connected) { agent_->connect(std::move(connected)); },
      [this] { return machine_ && machine_->state() == RunState::kRunning; }));
  return {};
}

void LifeCycle::on_agent_ready() {
  if (health_) health_->begin();
  if (commands_) commands_->agent_ready();
}

// As it is before anything was asked of it.
void LifeCycle::on_untouched(bool waits, const std::function<void()>& go_on) {
  TemplateEnds* templates = ends_.templates && ends_.templates->wanted() ? &*ends_.templates : nullptr;
  if (templates == nullptr || report_.boots > 1) return go_on();
  if (waits != templates->kind().waits()) {
    log_info(
        "template: none of this guest: it has a network, a root or a first program of its own, for which its "
        "agent does not wait");
    (void)templates->take_files();
    templates->drop();
    return without_template(go_on);
  }
  snapshot(templates->take_files(), [this, go_on](const Result<SnapshotTaken>& taken) {
    if (taken) {
      ends_.templates->keep();
      if (goes_on_from_template()) return;
    } else {
      log_info("template: {}", taken.error().text());
      ends_.templates->drop();
    }
    // The machine may be gone.
    if (machine_) go_on();
  });
}

// A system runs for long: what it has not written to since its template was taken, it is to have in common
// with those that begin there, as they have.
bool LifeCycle::goes_on_from_template() {
  if (!machine_ || !ends_.templates->kind().hands_over() || machine_->memory().file() >= 0) return false;
  auto kept = ends_.templates->kept();
  if (!kept) {
    log_info("template: {}", kept.error().text());
    return false;
  }
  ends_.saved = std::move(*kept);
  saved_boot_ = report_.boots;
  restart("the guest goes on from its template");
  return true;
}

// It lacks what it was to be told later.
void LifeCycle::without_template(const std::function<void()>& go_on) {
  const bool lacks = !ends_.templates->kind().told().empty();
  if (!lacks) return go_on();
  ends_.templates.reset();
  restart("the machine boots without a template");
}

// What the guest has written to so far is what the next one will write to.
void LifeCycle::note_touched() {
  // Memory that others have as well is a copy already.
  if (!ends_.templates || !machine_ || report_.boots > 1 || machine_->memory().file() >= 0 ||
      !ends_.templates->take_touched_wanted())
    return;
  notes_touched_ = true;
  builder_->loop().post([this, machine = machine_.get()] {
    touched_ = touched_pages(machine->memory(), environment_.pagemap);
    loop_.post([this] { tell_touched(); });
  });
}

void LifeCycle::tell_touched() {
  if (!touched_.empty()) ends_.templates->keep_touched(std::exchange(touched_, {}));
}

bool LifeCycle::boots_after_all(const std::string& why, bool own) {
  // What other vCPUs tell until it does.
  if (boots_after_all_ && report_.boots == saved_boot_ + 1) return true;
  if (!ends_.templates || !ends_.saved || report_.boots != saved_boot_ + 1 || !agent_ || agent_->has_begun())
    return false;
  log_info("template: {}; the machine boots", why);
  boots_after_all_ = true;
  if (!own) ends_.templates->drop();
  ends_.saved.reset();
  if (commands_) commands_->forget();
  restart("the guest boots");
  return true;
}

bool LifeCycle::on_agent_lost(const std::string& why, bool own) {
  if (boots_after_all(why, own)) return true;
  if (!commands_under_way() || commands_->agent_was_ready()) return false;
  commands_->give_up(why);
  return true;
}

// A command without what it is to work on does not begin. Whoever is in a guest without one can help himself.
void LifeCycle::on_share_failure(const std::string& why) {
  if (commands_under_way() && !commands_->agent_was_ready()) return commands_->give_up(why);
  log_warn("{}", why);
}

// Said once: a guest whose programs are all its own is none that fails.
void LifeCycle::on_mounts_end() {
  if (agent_->has_called()) return;
  log_warn("shares: no agent in the guest has mounted them; in the guest: mount -t virtiofs {} {}",
           ends_.share_mounts.front().tag, ends_.share_mounts.front().target);
}

TimeLimit LifeCycle::boot_limit() const {
  if (commands_ && !spec_.boot_timeout) return GuestAgent::kPatience;
  return spec_.boot_timeout;
}

// The guest is gone and its command's end is not known. What it has written so far is still passed on.
void LifeCycle::end_without_command(Ending ending) {
  if (ending_ || finished_) return;
  if (ending.detail.empty() && !commands_->agent_was_ready()) ending.detail = console_lines();
  ending_ = std::move(ending);
  // Posted: the machine is on the stack.
  loop_.post([this] {
    limits_.boot_is_over();
    stop_machine(ending_->state);
    commands_->guest_gone(ending_->message);
  });
}

// By itself, in an orderly way.
void LifeCycle::on_guest_end(RunState state, const std::string& what) {
  if (!commands_under_way()) return finish(state, command_status_, command_message_);
  Ending ending{state, machine_->guest_status(), {}, {}};
  if (ending.exit_status == 0) {
    ending.exit_status = kStatusFailure;
    ending.message = fmt::format("{} before its command's status was known; {}", what, last_console_line());
  }
  end_without_command(std::move(ending));
}

void LifeCycle::on_commands_end(int status, std::string message) {
  if (ending_) return finish(ending_->state, ending_->exit_status, ending_->message, ending_->detail);
  command_status_ = status;
  command_message_ = std::move(message);
  // Nothing of a throw-away guest is worth the time of a shutdown.
  if (!keeps_state(spec_)) return finish(RunState::kPoweredOff, command_status_, command_message_);
  if (spec_.grace_period) limits_.asked_to_end(spec_.grace_period);
  agent_->power_off([this](const std::string& why) {
    // One that powers off may be gone before its answer is.
    if (!machine_) return;
    log_warn("power the guest off: {}; stopped", why);
    finish(RunState::kKilled, command_status_, command_message_);
  });
}

// The first one that would end us is the command's; without one, there is nothing to wait for.
void LifeCycle::on_command_signal(int number) {
  const char* name = ::sigabbrev_np(number);
  const int passed_on = number == SIGTERM ? environment_.commands->stop_signal : number;
  if (!commands_->signal(passed_on))
    return finish(RunState::kKilled, 128 + number, fmt::format("stopped by SIG{}", name));
  log_info("signal {} passed on to the command (a second signal stops the guest at once)", passed_on);
  ending_signal_ = number;
}

}  // namespace snug
