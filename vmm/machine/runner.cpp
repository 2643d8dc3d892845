#include "vmm/machine/runner.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "vmm/base/log.h"
#include "vmm/base/setup_memory.h"
#include "vmm/kvm/kernel_mode.h"

namespace snug {
namespace {

// How long a consumer that stalls gets at the end to take what the guest printed last.
constexpr std::chrono::milliseconds kOutputPatience{1000};

// passt's longest packet: frames that large cost both sides least.
constexpr uint32_t kUserMtu = 65520;

// A guest that ends before has no use for it: what it dropped it would soon touch again.
constexpr std::chrono::seconds kSettled{1};

// noearly: Linux looks through every slot for chips with known bugs before it knows what machine it is on;
// there are none here, and each look is an exit (46 in all).
constexpr std::string_view kDefaultCmdline = "console=ttyS0 panic=-1 pci=noearly";

std::string seconds_text(std::chrono::milliseconds duration) {
  return fmt::format("{:g}s", static_cast<double>(duration.count()) / 1000);
}

// Hardware KVM shows its module; anything else is tried out. Linux needs a kernel mode that really runs.
Result<void> check_kernel_mode(const kvm::Kvm& kvm) {
  for (const char* module : {"/sys/module/kvm_intel", "/sys/module/kvm_amd"})
    if (::access(module, F_OK) == 0) return {};
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

}  // namespace

Result<std::unique_ptr<Runner>> Runner::create(const kvm::Kvm& kvm, const Spec& spec, RunnerOptions options) {
  std::unique_ptr<Runner> runner(new Runner(kvm, spec, std::move(options)));
  SNUG_TRY(runner->open_inputs());
  runner->loop_ = SNUG_TRY(EventLoop::create());
  EventLoop& loop = *runner->loop_;
  runner->signals_ = SNUG_TRY(SignalWatch::create(loop, {SIGTERM, SIGINT, SIGHUP, SIGTSTP, SIGCONT},
                                                  [r = runner.get()](int number) { r->on_signal(number); }));
  SNUG_TRY(runner->open_console());
  SNUG_TRY(runner->open_vsock());
  SNUG_TRY(runner->open_ports());
  runner->timeout_ = SNUG_TRY(loop.timer([r = runner.get()] {
    r->finish(
        RunState::kKilled, kStatusTimeout,
        fmt::format("timeout of {} reached; {}", seconds_text(*r->spec_.timeout), r->last_console_line()));
  }));
  runner->boot_timeout_ = SNUG_TRY(loop.timer([r = runner.get()] { r->on_boot_timeout(); }));
  runner->settled_ = SNUG_TRY(loop.timer(drop_setup_memory));
  runner->grace_ = SNUG_TRY(loop.timer([r = runner.get()] { r->on_grace_end(); }));
  SNUG_TRY(runner->open_commands());
  SNUG_TRY(runner->open_control());
  return runner;
}

Result<void> Runner::boot() {
  MachineConfig config;
  config.cpus = spec_.cpus;
  config.memory = spec_.memory;
  config.kernel_fd = kernel_.get();
  config.kernel_cache = &kernel_cache_;
  for (const UniqueFd& initrd : initrds_) config.initrd_fds.push_back(initrd.get());
  // hostname: a name for guests that have none of their own (Linux 6.0; an /etc/hostname wins under systemd).
  config.cmdline = fmt::format("{} hostname={}", kDefaultCmdline, spec_.name);
  config.kaslr = spec_.kaslr;
  if (!spec_.cmdline.empty()) config.cmdline += " " + spec_.cmdline;
  for (DiskFile& disk : disks_) config.disks.push_back(disk.config());
  SNUG_TRY(start_networks(config));
  if (vsock_) config.vsock = {{.cid = spec_.vsock.cid}, vsock_.get()};
  config.rng = spec_.rng;
  config.packed_rings = spec_.packed_rings;
  config.pci_ports = spec_.pci == PciAccess::kPorts;
  config.balloon = spec_.balloon;
  for (const auto& port : consoles_) config.consoles.push_back(port.get());
  for (size_t i = 0; i < channels_.size(); ++i)
    config.channels.push_back({spec_.channels[i].name, channels_[i].get()});
  config.stop_on_panic = spec_.on_panic != OnPanic::kIgnore;
  log_debug("command line: {}", config.cmdline);
  MachineEvents events;
  events.guest_event = [this](GuestEvent event, uint32_t value) { on_guest_event(event, value); };
  events.vcpu_end = [this](VcpuReport report) { on_vcpu_end(std::move(report)); };
  events.user_space = [this] {
    if (!commands_) boot_timeout_.disarm();
  };
  machine_ = SNUG_TRY(Machine::build(kvm_, std::move(config), *loop_, *console_, std::move(events)));
  if (vsock_)
    vsock_->attach([machine = machine_.get()](uint32_t port, UniqueFd stream, VsockDone done) {
      machine->virtio().connect_vsock(port, std::move(stream), std::move(done));
    });
  const boot::LoadedKernel& kernel = machine_->kernel();
  log_debug("kernel: {}, entered at {:#x}", kernel.format, kernel.entry);
  if (kernel.is_linux && report_.boots == 0) SNUG_TRY(check_kernel_mode(kvm_));
  ++report_.boots;
  boot_began_ = std::chrono::steady_clock::now();
  if (const TimeLimit limit = boot_limit()) boot_timeout_.arm(*limit);
  return machine_->start();
}

Result<void> Runner::start_networks(MachineConfig& config) {
  networks_.clear();
  for (size_t i = 0; i < nics_.size(); ++i) {
    const NetSpec& net = nics_[i];
    const auto tap = taps_.find(i);
    NicConfig nic;
    nic.device.name = fmt::format("net[{}]", i);
    nic.device.mac = *net.mac;
    nic.device.pairs = static_cast<uint16_t>(net.queues);
    nic.device.queue_size = static_cast<uint16_t>(net.queue_size);
    nic.thread = net.thread;
    // From any thread, with locks held.
    nic.device.broken = [this, i, boot = report_.boots + 1] {
      loop_->post([this, i, boot] {
        if (machine_ && report_.boots == boot) on_broken_network(i);
      });
    };
    uint32_t mtu = net.mtu;
    if (tap != taps_.end()) {
      nic.device.control = true;
      nic.backend = SNUG_TRY(with_context(make_tap_backend(tap->second.files()), nic.device.name));
      if (mtu == 0) mtu = tap->second.mtu();
    } else {
      nic.backend = SNUG_TRY(start_user_network(i));
      if (mtu == 0) mtu = kUserMtu;
    }
    nic.device.mtu = static_cast<uint16_t>(mtu);
    config.nics.push_back(std::move(nic));
  }
  return {};
}

// Connections do not outlive the guest that held them: each boot has processes of its own.
Result<std::unique_ptr<NetBackend>> Runner::start_user_network(size_t i) {
  UserNetwork::Events events;
  events.connected = [this, i](std::unique_ptr<NetBackend> backend) {
    if (!machine_) return;
    if (auto connected = machine_->virtio().connect_nic(i, std::move(backend)); !connected)
      log_warn("net[{}]: {}", i, connected.error().text());
  };
  events.lost = [this, i] {
    if (machine_) machine_->virtio().disconnect_nic(i);
  };
  networks_[i] = SNUG_TRY(
      with_context(UserNetwork::start(*loop_, nics_[i], std::move(events)), fmt::format("net[{}]", i)));
  return networks_[i]->take_backend();
}

void Runner::on_broken_network(size_t i) {
  if (const auto user = networks_.find(i); user != networks_.end()) return user->second->give_up();
  log_warn("net[{}]: the interface {} is gone; the guest is without it", i, nics_[i].tap);
  machine_->virtio().disconnect_nic(i);
}

Result<RunReport> Runner::run() {
  if (!console_->pty_path().empty()) log_line(LogLevel::kWarn, "the console is " + console_->pty_path());
  SNUG_TRY(boot());
  if (spec_.timeout) timeout_.arm(*spec_.timeout);
  if (options_.started) options_.started();
  settled_.arm(kSettled);
  SNUG_TRY(loop_->run());
  stop_machine(report_.state);
  console_->finish(kOutputPatience);
  if (console_server_) console_server_->finish();
  if (options_.directory != nullptr) options_.directory->record_end(report_.exit_status, report_.message);
  if (control_) control_->finish(report_.exit_status, report_.message);
  return report_;
}

void Runner::stop_machine(RunState state) {
  if (!machine_) return;
  if (vsock_) vsock_->detach();
  machine_->stop(state);
  console_->connect(nullptr);
  if (state == RunState::kKilled && log_enabled(LogLevel::kDebug))
    log_debug("{}", machine_->describe_vcpus());
  report_.exits.add(machine_->exit_stats());
  if (report_.cpu_ns_at_first_run == 0) report_.cpu_ns_at_first_run = machine_->cpu_ns_at_first_run();
  machine_.reset();
  networks_.clear();
}

void Runner::restart() {
  // Posted: the machine that asks for it is still on the stack. Two vCPUs may ask at once; one restart
  // answers both.
  loop_->post([this, asked_in = report_.boots] {
    if (finished_ || report_.boots != asked_in) return;
    stop_machine(RunState::kReset);
    log_info("the guest restarts");
    if (auto booted = boot(); !booted)
      finish(RunState::kFailed, kStatusFailure, std::move(booted.error()).with_context("restart").text());
  });
}

void Runner::on_guest_event(GuestEvent event, uint32_t value) {
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

void Runner::on_reset() {
  // A kernel without a pvpanic driver reports its panic on the console only, then resets (panic=-1).
  if (spec_.on_panic != OnPanic::kIgnore && !machine_->reports_panics() && console_->tail().panic_line())
    return on_crash("the guest's kernel panicked", {});
  // What it was started for is gone.
  if (commands_) return on_guest_end(RunState::kReset, "the guest reset");
  // A guest that was asked to end has ended, whichever way it goes down.
  if (spec_.on_reboot == OnReboot::kExit || ending_signal_ != 0)
    return finish(RunState::kReset, machine_->guest_status(), {});
  restart();
}

void Runner::on_crash(const std::string& what, std::string detail) {
  if (spec_.on_panic == OnPanic::kRestart && !commands_ && ending_signal_ == 0) {
    log_warn("{}; {}", what, last_console_line());
    return restart();
  }
  const auto panic = console_->tail().panic_line();
  std::string message = panic ? fmt::format("{}: {}; {}", what, *panic, last_console_line())
                              : fmt::format("{}; {}", what, last_console_line());
  if (commands_under_way()) {
    // Nobody has seen it yet.
    detail += (detail.empty() || detail.ends_with('\n') ? "" : "\n") + console_lines();
    return end_without_command({RunState::kCrashed, kStatusPanic, std::move(message), std::move(detail)});
  }
  finish(RunState::kCrashed, kStatusPanic, std::move(message), std::move(detail));
}

void Runner::on_vcpu_end(VcpuReport report) {
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

void Runner::on_signal(int number) {
  if (number == SIGTSTP) {
    console_->suspend_terminal();
    if (commands_) commands_->suspend_terminal();
    ::raise(SIGSTOP);
    return;  // what follows is SIGCONT's
  }
  if (number == SIGCONT) return on_continue();
  const char* name = ::sigabbrev_np(number);
  if (wish_.is_the_same()) return;
  if (ending_signal_ != 0 || !machine_)
    return finish(RunState::kKilled, 128 + number, fmt::format("stopped by SIG{}", name));
  if (commands_under_way()) return on_command_signal(number);
  log_warn("SIG{}: power button pressed; the guest has {} (a second signal stops it at once)", name,
           spec_.grace_period ? seconds_text(*spec_.grace_period) : "all the time it wants");
  begin_ending(number, spec_.grace_period);
}

// This process was stopped, by Ctrl-Z or from outside, and goes on; in the foreground of its terminal or, so
// far, in the background. (What the guest's watchdogs are told: VcpuThreads.)
void Runner::on_continue() {
  if (::isatty(STDIN_FILENO) == 0 || is_own_terminal(STDIN_FILENO)) {
    if (commands_) commands_->resume_terminal();
    console_->resume_terminal();
  }
  if (machine_ && machine_->state() == RunState::kRunning) set_guest_clock();
}

void Runner::begin_ending(int signal, TimeLimit grace) {
  ending_signal_ = signal;
  ending_grace_ = grace;
  if (options_.ending) options_.ending(grace);
  if (grace) {
    grace_.arm(*grace);
  } else {
    grace_.disarm();
  }
  machine_->resume();
  machine_->press_power_button();
}

void Runner::on_grace_end() {
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

void Runner::on_boot_timeout() {
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

std::string Runner::last_console_line() {
  const auto line = console_->tail().last_line();
  return line.empty() ? "the console is empty" : fmt::format("last console line: {}", line);
}

// For a report on a guest whose console nobody saw.
std::string Runner::console_lines() {
  constexpr size_t kLines = 40;
  const std::string lines = console_->tail().last_lines(kLines);
  return lines.empty() ? "" : "the end of the guest's console:\n" + lines;
}

void Runner::finish(RunState state, int exit_status, std::string message, std::string detail) {
  if (finished_) return;
  finished_ = true;
  report_.state = state;
  report_.exit_status = exit_status;
  report_.message = std::move(message);
  report_.detail = std::move(detail);
  loop_->stop();
}

}  // namespace snug
