#include "vmm/run/life_cycle.h"

#include <signal.h>
#include <string.h>

#include "vmm/base/log.h"
#include "vmm/kvm/kernel_mode.h"
#include "vmm/run/saved_commands.h"

namespace snug {
namespace {

// Linux needs a kernel mode that really runs.
Result<void> check_kernel_mode(const kvm::Kvm& kvm) {
  const auto probe = SNUG_TRY(kvm::probe_kernel_mode(kvm));
  if (probe.mode == kvm::KernelMode::kNative) return {};
  return fail_with_hint(
      fmt::format(
          "this host's KVM emulates guest kernel mode ({:.0f} ns for one pass of a two-instruction loop): "
          "Linux cannot boot on it",
          probe.ns_per_pass),
      "use a host with VT-x or AMD-V (or nested virtualisation), or run it in the lab: tools/lab -- snug run "
      "...");
}

protocol::Begin begin_of(const HostEnds& ends) {
  protocol::Begin begin;
  for (const NetSpec& nic : ends.nics) begin.addresses.push_back(*nic.mac);
  if (ends.templates) begin.words = ends.templates->kind().told();
  return begin;
}

// Of a guest that goes on as another machine than it was.
std::vector<size_t> changed_nics(const HostEnds& ends) {
  std::vector<size_t> changed;
  for (size_t i = 0; i < std::min(ends.nics.size(), ends.former_addresses.size()); ++i)
    if (ends.former_addresses[i] != *ends.nics[i].mac) changed.push_back(i);
  return changed;
}

std::vector<protocol::AddressChange> changes_of(const HostEnds& ends) {
  std::vector<protocol::AddressChange> changes;
  for (const size_t i : changed_nics(ends)) changes.push_back({ends.former_addresses[i], *ends.nics[i].mac});
  return changes;
}

}  // namespace

LifeCycle::LifeCycle(const Environment& environment)
    : environment_(environment),
      spec_(environment.spec),
      loop_(environment.loop),
      ends_(environment.ends),
      networks_(environment.loop, environment.ends, environment.warden) {}

Result<std::unique_ptr<LifeCycle>> LifeCycle::create(const Environment& environment) {
  std::unique_ptr<LifeCycle> life(new LifeCycle(environment));
  RunLimits::Events events;
  events.run_over = [life = life.get()] {
    life->finish(RunState::kKilled, kStatusTimeout,
                 fmt::format("timeout of {} reached; {}", seconds_text(*life->spec_.timeout),
                             life->last_console_line()));
  };
  events.boot_over = [life = life.get()] { life->on_boot_timeout(); };
  events.grace_over = [life = life.get()] { life->on_grace_end(); };
  events.mounts_over = [life = life.get()] { life->on_mounts_end(); };
  std::function<void()> begins;
  if (environment.thread_begins)
    begins = [begins = environment.thread_begins] { begins(ThreadKind::kBuilder); };
  life->builder_ = SNUG_TRY(LoopThread::create("builder", std::move(begins)));
  life->snapshots_ = SNUG_TRY(SnapshotTaker::create(environment.loop, *life->builder_, environment.pagemap));
  life->limits_ = SNUG_TRY(RunLimits::create(environment.loop, std::move(events)));
  if (VsockHub* hub = environment.ends.vsock.get())
    life->agent_ = std::make_unique<GuestAgent>(
        environment.loop, *hub,
        GuestAgent::Wishes{environment.ends.share_mounts, begin_of(environment.ends),
                           changes_of(environment.ends),
                           environment.ends.templates && environment.ends.templates->kind().hands_over()},
        GuestAgent::Events{
            // In user space, whether or not it has opened a console.
            .called = [life = life.get()] { life->limits_.boot_is_over(); },
            .share_failed = [life = life.get()](const std::string& why) { life->on_share_failure(why); },
            .ready = [life = life.get()] { life->on_agent_ready(); },
            .untouched = [life = life.get()](
                             bool waits,
                             const std::function<void()>& go_on) { life->on_untouched(waits, go_on); },
            .lost = [life = life.get()](const std::string& why,
                                        bool own) { return life->on_agent_lost(why, own); },
            .readdressed = [life = life.get()] { life->networks_.plug_in_soon(); }});
  life->open_commands();
  SNUG_TRY(life->open_health());
  return life;
}

Result<void> LifeCycle::begin() {
  began_ = FormerLife::now();
  if (environment_.former.boots > 0) takes_over();
  SNUG_TRY(build_with_template());
  if (machine_->kernel().is_linux && !environment_.native) SNUG_TRY(check_kernel_mode(environment_.kvm));
  SNUG_TRY(builder_->start());
  SNUG_TRY(environment_.before_first_run());
  SNUG_TRY(run_machine());
  if (environment_.former.boots > 0)
    update_seconds_ = static_cast<double>(FormerLife::now() - environment_.former.stands_since) / 1e9;
  limits_.run_begins(time_left());
  return {};
}

Result<void> LifeCycle::build_prepared(MachineConfig config) {
  Result<void> built;
  builder_->call([&] { built = build(std::move(config)); });
  return built;
}

// A template with which nothing can begin is none: the machine boots. What is lacking outside of the machine
// is not its fault.
Result<void> LifeCycle::build_with_template() {
  auto built = build_prepared(SNUG_TRY(prepare_boot()));
  if (built || !ends_.templates || !begins_saved()) return built;
  log_info("template: {}", built.error().text());
  ends_.templates->drop();
  ends_.saved.reset();
  return build_prepared(SNUG_TRY(prepare_boot()));
}

RunReport LifeCycle::end() {
  stop_machine(report_.state);
  ends_.finish();
  return report_;
}

const char* LifeCycle::agent_state() const {
  return agent_ ? agent_->state(spec_.boot_timeout.value_or(GuestAgent::kPatience)) : "none";
}

std::optional<std::string> LifeCycle::share_outcome(const std::string& tag) const {
  return agent_ ? agent_->shares().outcome(tag) : std::nullopt;
}

Result<MachineConfig> LifeCycle::prepare_boot() {
  MachineConfig config = SNUG_TRY(ends_.machine_config(spec_));
  config.nics = SNUG_TRY(networks_.start());
  config.thread_begins = environment_.thread_begins;
  log_debug("command line: {}", config.cmdline);
  return config;
}

// The builder's: the loop reads no files.
Result<void> LifeCycle::build(MachineConfig config) {
  // Where it is to begin is for one boot: what the guest resets boots its kernel.
  if (begins_saved()) config.saved = SNUG_TRY(ends_.saved->read());
  SNUG_TRY(networks_.add_taps(config.nics));
  MachineEvents events;
  events.guest_event = [this](GuestEvent event, uint32_t value) { on_guest_event(event, value); };
  events.vcpu_end = [this](VcpuReport report) { on_vcpu_end(std::move(report)); };
  events.failed = [this](std::string what) { finish(RunState::kFailed, kStatusFailure, std::move(what)); };
  events.user_space = [this] {
    if (!commands_) limits_.boot_is_over();
  };
  machine_ =
      SNUG_TRY(Machine::build(environment_.kvm, std::move(config), loop_, *ends_.console, std::move(events)));
  return {};
}

// The machine is there.
Result<void> LifeCycle::run_machine() {
  networks_.attach(machine_->virtio());
  if (ends_.vsock)
    ends_.vsock->attach([machine = machine_.get()](uint32_t port, UniqueFd stream, VsockDone done) {
      machine->virtio().connect_vsock(port, std::move(stream), std::move(done));
    });
  const boot::LoadedKernel& kernel = machine_->kernel();
  log_debug("kernel: {}, entered at {:#x}", kernel.format, kernel.entry);
  const bool goes_on = begins_saved();
  ++report_.boots;
  if (agent_) agent_->guest_boots();
  if (agent_ && goes_on) {
    networks_.pull_out(changed_nics(ends_));
    // The guest of an update has the name that it has given itself.
    agent_->guest_goes_on(ends_.saved->same ? "" : spec_.name,
                          ends_.templates && ends_.templates->kind().waits());
  }
  if (agent_ && agent_->shares().any() && !commands_) limits_.mounts_begin(GuestAgent::kPatience);
  limits_.boot_begins(boot_limit());
  Result<void> started;
  builder_->call([&] { started = machine_->start(); });
  return started;
}

void LifeCycle::snapshot(SnapshotFiles files, SnapshotTaker::Done done) {
  if (!machine_) return done(fail("{} is between two boots", spec_.name));
  if (commands_) commands_->keep();
  // Nothing has been heard of the guest since it stood still.
  snapshots_->take(*machine_, std::move(files), [this, done = std::move(done)](Result<SnapshotTaken> taken) {
    if (taken && commands_) {
      taken->commands = saved_commands(*environment_.commands, commands_->progress());
    } else if (taken && environment_.health != nullptr) {
      taken->commands = saved_health(*environment_.health);
    }
    done(std::move(taken));
  });
}

Result<void> LifeCycle::send(SnapshotFiles files, SendingEnds ends) {
  if (!machine_) return fail("{} is between two boots", spec_.name);
  if (commands_) commands_->keep();
  return snapshots_->send(
      *machine_, std::move(files), std::move(ends),
      [this] { return commands_ ? saved_commands(*environment_.commands, commands_->progress()) : ""; },
      // It has stood still for as long as whoever sent it took to give up.
      [this](const Result<SnapshotTaken>& taken) {
        if (!taken && !finished_) set_guest_clock();
      });
}

void LifeCycle::stop_machine(RunState state) {
  if (!machine_) return;
  if (health_) health_->end();
  snapshots_->machine_goes();
  if (ends_.vsock) ends_.vsock->detach();
  networks_.detach();
  if (std::exchange(notes_touched_, false)) {
    builder_->call([] {});
    tell_touched();
  }
  machine_->stop(state);
  // Before the machine lets go of its socket: a passt that ends by itself would be mourned and started anew.
  networks_.stop();
  ends_.console->connect(nullptr);
  if (state == RunState::kKilled && log_enabled(LogLevel::kDebug))
    log_debug("{}", machine_->describe_vcpus());
  report_.exits.add(machine_->exit_stats());
  if (report_.cpu_ns_at_first_run == 0) report_.cpu_ns_at_first_run = machine_->cpu_ns_at_first_run();
  // The last one goes with its process: taken apart, the host's kernel waits for a grace period at each
  // doorbell and interrupt, and once for all of them else.
  if (finished_) return (void)machine_.release();
  machine_.reset();
}

void LifeCycle::restart(const char* what) {
  // Posted: the machine that asks for it is still on the stack. Two vCPUs may ask at once; one restart
  // answers both.
  loop_.post([this, what, asked_in = report_.boots] {
    if (finished_ || report_.boots != asked_in) return;
    if (ends_.saved && ends_.saved->same) {
      ends_.saved.reset();
      environment_.warden.forget_ram();
    }
    stop_machine(RunState::kReset);
    log_info("{}", what);
    auto booted = build_with_template();
    if (booted) booted = run_machine();
    if (!booted)
      finish(RunState::kFailed, kStatusFailure, std::move(booted.error()).with_context("restart").text());
  });
}

void LifeCycle::on_guest_event(GuestEvent event, uint32_t value) {
  if (boots_after_all("the guest ended before its agent answered")) return;
  switch (event) {
    case GuestEvent::kPowerOff:
      if (commands_) return on_guest_end(RunState::kPoweredOff, "the guest powered off");
      return finish(RunState::kPoweredOff, machine_->guest_status(), {});
    case GuestEvent::kReset:
      return on_reset();
    case GuestEvent::kPanic:
      if (spec_.on_panic == OnPanic::kIgnore) return log_warn("the guest reports a panic");
      return on_crash("the guest's kernel panicked", {});
    case GuestEvent::kCrashLoaded:
      return log_info("the guest's crash kernel takes over");
    // As QEMU's isa-debug-exit: an odd status, so that 0 is never made up.
    case GuestEvent::kDebugExit:
      return finish(RunState::kPoweredOff, static_cast<int>((value << 1 | 1) & 0xff),
                    fmt::format("the guest wrote {:#x} to the debug exit port", value));
  }
}

void LifeCycle::on_reset() {
  // A kernel without a pvpanic driver reports its panic on the console only, then resets (panic=-1).
  if (spec_.on_panic != OnPanic::kIgnore && !machine_->reports_panics() && ends_.console->tail().panic_line())
    return on_crash("the guest's kernel panicked", {});
  // What it was started for is gone.
  if (commands_) return on_guest_end(RunState::kReset, "the guest reset");
  // A guest that was asked to end has ended, whichever way it goes down.
  if (spec_.on_reboot == OnReboot::kExit || ending_signal_ != 0)
    return finish(RunState::kReset, machine_->guest_status(), {});
  restart();
}

void LifeCycle::on_crash(const std::string& what, std::string detail) {
  if (spec_.on_panic == OnPanic::kRestart && !commands_ && ending_signal_ == 0) {
    log_warn("{}; {}", what, last_console_line());
    return restart();
  }
  const auto panic = ends_.console->tail().panic_line();
  std::string message = panic ? fmt::format("{}: {}; {}", what, *panic, last_console_line())
                              : fmt::format("{}; {}", what, last_console_line());
  if (commands_under_way()) {
    // Nobody has seen it yet.
    detail += (detail.empty() || detail.ends_with('\n') ? "" : "\n") + console_lines();
    return end_without_command({RunState::kCrashed, kStatusPanic, std::move(message), std::move(detail)});
  }
  finish(RunState::kCrashed, kStatusPanic, std::move(message), std::move(detail));
}

void LifeCycle::on_vcpu_end(VcpuReport report) {
  if (boots_after_all("the guest ended before its agent answered")) return;
  switch (report.end) {
    case VcpuEnd::kPowerOff:
      return on_guest_event(GuestEvent::kPowerOff, 0);
    case VcpuEnd::kReset:
      return on_reset();
    case VcpuEnd::kTripleFault:
      // As a PC does it, when crashes are none of our business.
      if (spec_.on_panic == OnPanic::kIgnore) return on_reset();
      return on_crash(fmt::format("triple fault on vCPU {}", report.vcpu), std::move(report.detail));
    case VcpuEnd::kFailure:
      return finish(RunState::kFailed, kStatusFailure, fmt::format("vCPU {}: {}", report.vcpu, report.what),
                    std::move(report.detail));
  }
}

void LifeCycle::on_ending_signal(int number) {
  const char* name = ::sigabbrev_np(number);
  if (ending_signal_ != 0 || !machine_)
    return finish(RunState::kKilled, 128 + number, fmt::format("stopped by SIG{}", name));
  if (commands_under_way()) return on_command_signal(number);
  log_warn("SIG{}: power button pressed; the guest has {} (a second signal stops it at once)", name,
           spec_.grace_period ? seconds_text(*spec_.grace_period) : "all the time it wants");
  begin_ending(number, spec_.grace_period);
}

void LifeCycle::stop(const TimeLimit& grace) {
  if (!commands_under_way()) return begin_ending(SIGTERM, grace);
  // As the signal: the command in the guest gets it.
  resume();
  on_command_signal(SIGTERM);
  ending_grace_ = grace;
  if (ending_grace_) limits_.asked_to_end(ending_grace_);
}

void LifeCycle::resume() {
  if (machine_->state() != RunState::kPaused) return;
  machine_->resume();
  snapshots_->machine_runs_on();
  set_guest_clock();
}

void LifeCycle::set_guest_clock() {
  if (agent_) agent_->set_clock();
}

void LifeCycle::begin_ending(int signal, const TimeLimit& grace) {
  ending_signal_ = signal;
  ending_grace_ = grace;
  environment_.warden.ending(grace);
  limits_.asked_to_end(grace);
  resume();
  machine_->press_power_button();
}

void LifeCycle::on_grace_end() {
  const auto grace =
      ending_grace_ ? *ending_grace_ : spec_.grace_period.value_or(std::chrono::milliseconds(0));
  const std::string what = fmt::format(
      "the {} within the grace period of {}; stopped",
      commands_under_way() ? "command did not end" : "guest did not power off", seconds_text(grace));
  // The command's status is known, whatever becomes of the guest.
  if (commands_ && ending_signal_ == 0) {
    log_warn("{}", what);
    return finish(RunState::kKilled, command_status_, command_message_);
  }
  finish(RunState::kKilled, 128 + ending_signal_, what);
}

void LifeCycle::on_boot_timeout() {
  if (commands_)
    return finish(
        RunState::kKilled, kStatusTimeout,
        fmt::format("the guest's agent did not call within {}: the guest hangs, or its image has no "
                    "snug-agent or no driver for virtio-vsock; {}",
                    seconds_text(*boot_limit()), last_console_line()),
        console_lines());
  finish(RunState::kKilled, kStatusTimeout,
         fmt::format("the guest did not open its console within boot_timeout ({}); {}",
                     seconds_text(*spec_.boot_timeout), last_console_line()));
}

std::string LifeCycle::last_console_line() const {
  const auto line = ends_.console->tail().last_line();
  return line.empty() ? "the console is empty" : fmt::format("last console line: {}", line);
}

// For a report on a guest whose console nobody saw.
std::string LifeCycle::console_lines() const {
  constexpr size_t kLines = 40;
  const std::string lines = ends_.console->tail().last_lines(kLines);
  return lines.empty() ? "" : "the end of the guest's console:\n" + lines;
}

void LifeCycle::finish(RunState state, int exit_status, std::string message, std::string detail) {
  if (finished_) return;
  finished_ = true;
  report_.state = state;
  report_.exit_status = exit_status;
  report_.message = std::move(message);
  report_.detail = std::move(detail);
  loop_.stop();
}

std::string seconds_text(std::chrono::milliseconds duration) {
  return fmt::format("{:g}s", static_cast<double>(duration.count()) / 1000);
}

}  // namespace snug
