#include "vmm/machine/runner.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "vmm/base/cache_folder.h"
#include "vmm/base/log.h"
#include "vmm/kvm/kernel_mode.h"
#include "vmm/machine/disk_file.h"
#include "vmm/spec/network.h"

namespace snug {
namespace {

// How long a consumer that stalls gets at the end to take what the guest printed last.
constexpr std::chrono::milliseconds kOutputPatience{1000};

// Signals closer together than this are one.
constexpr std::chrono::milliseconds kSameSignal{250};

// passt's longest packet: frames that large cost both sides least.
constexpr uint32_t kUserMtu = 65520;

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

Result<std::unique_ptr<Runner>> Runner::create(const kvm::Kvm& kvm, const Spec& spec) {
  std::unique_ptr<Runner> runner(new Runner(kvm, spec));
  SNUG_TRY(runner->open_inputs());
  runner->loop_ = SNUG_TRY(EventLoop::create());
  EventLoop& loop = *runner->loop_;
  runner->signals_ = SNUG_TRY(SignalWatch::create(loop, {SIGTERM, SIGINT, SIGHUP, SIGTSTP},
                                                  [r = runner.get()](int number) { r->on_signal(number); }));
  runner->console_ = SNUG_TRY(
      Console::open(spec.console, loop, [r = runner.get()] { r->finish(RunState::kKilled, 0, "quit"); }));
  runner->timeout_ = SNUG_TRY(loop.timer([r = runner.get()] {
    r->finish(
        RunState::kKilled, kStatusTimeout,
        fmt::format("timeout of {} reached; {}", seconds_text(*r->spec_.timeout), r->last_console_line()));
  }));
  runner->boot_timeout_ = SNUG_TRY(loop.timer([r = runner.get()] { r->on_boot_timeout(); }));
  runner->grace_ = SNUG_TRY(loop.timer([r = runner.get()] {
    r->finish(RunState::kKilled, 128 + r->ending_signal_,
              fmt::format("the guest did not power off within the grace period of {}; stopped",
                          seconds_text(*r->spec_.grace_period)));
  }));
  return runner;
}

Result<void> Runner::open_inputs() {
  kernel_ = SNUG_TRY(with_context(open_file(spec_.kernel, O_RDONLY), "kernel"));
  const std::string cache = spec_.kernel_cache ? cache_folder() : "";
  if (!cache.empty()) {
    auto opened = KernelCache::open(cache + "/kernels");
    if (opened) {
      kernel_cache_ = std::move(*opened);
    } else {
      log_debug("kernel cache: {}", opened.error().text());
    }
  }
  for (const auto& path : spec_.initrd)
    initrds_.push_back(SNUG_TRY(with_context(open_file(path, O_RDONLY), "initrd")));
  nics_ = network_interfaces(spec_);
  for (const DiskSpec& disk : spec_.disks) {
    DiskConfig config;
    auto fd = SNUG_TRY(with_context(open_disk(disk, config), "disk " + disk.path));
    config.fd = fd.get();
    disks_.push_back({std::move(fd), std::move(config)});
  }
  return {};
}

Result<void> Runner::boot() {
  MachineConfig config;
  config.cpus = spec_.cpus;
  config.memory = spec_.memory;
  config.kernel_fd = kernel_.get();
  config.kernel_cache = &kernel_cache_;
  for (const UniqueFd& initrd : initrds_) config.initrd_fds.push_back(initrd.get());
  config.cmdline = kDefaultCmdline;
  if (!spec_.cmdline.empty()) config.cmdline += " " + spec_.cmdline;
  for (const Disk& disk : disks_) config.disks.push_back(disk.config);
  SNUG_TRY(start_networks(config));
  config.rng = spec_.rng;
  config.stop_on_panic = spec_.on_panic != OnPanic::kIgnore;
  log_debug("command line: {}", config.cmdline);
  MachineEvents events;
  events.guest_event = [this](GuestEvent event, uint32_t value) { on_guest_event(event, value); };
  events.vcpu_end = [this](VcpuReport report) { on_vcpu_end(std::move(report)); };
  events.console_opened = [this] {
    log_debug("the guest opened its console");
    boot_timeout_.disarm();
  };
  machine_ = SNUG_TRY(Machine::build(kvm_, std::move(config), *loop_, *console_, std::move(events)));
  const boot::LoadedKernel& kernel = machine_->kernel();
  log_debug("kernel: {}, entered at {:#x}", kernel.format, kernel.entry);
  if (kernel.is_linux && report_.boots == 0) SNUG_TRY(check_kernel_mode(kvm_));
  ++report_.boots;
  if (spec_.boot_timeout) boot_timeout_.arm(*spec_.boot_timeout);
  return machine_->start();
}

// Connections do not outlive the guest that held them: each boot has processes of its own.
Result<void> Runner::start_networks(MachineConfig& config) {
  networks_.clear();
  for (size_t i = 0; i < nics_.size(); ++i) {
    UserNetwork::Events events;
    events.connected = [this, i](std::unique_ptr<NetBackend> backend) {
      if (!machine_) return;
      if (auto connected = machine_->connect_nic(i, std::move(backend)); !connected)
        log_warn("net[{}]: {}", i, connected.error().text());
    };
    events.lost = [this, i] {
      if (machine_) machine_->disconnect_nic(i);
    };
    events.failed = [this, i](const std::string& why) {
      finish(RunState::kFailed, kStatusFailure, fmt::format("net[{}]: {}", i, why));
    };
    auto network = SNUG_TRY(
        with_context(UserNetwork::start(*loop_, nics_[i], std::move(events)), fmt::format("net[{}]", i)));
    NicConfig nic;
    nic.device.name = fmt::format("net[{}]", i);
    nic.device.mac = *nics_[i].mac;
    nic.device.mtu = static_cast<uint16_t>(nics_[i].mtu != 0 ? nics_[i].mtu : kUserMtu);
    nic.backend = network->take_backend();
    config.nics.push_back(std::move(nic));
    networks_.push_back(std::move(network));
  }
  return {};
}

Result<RunReport> Runner::run() {
  if (!console_->pty_path().empty()) log_line(LogLevel::kWarn, "the console is " + console_->pty_path());
  SNUG_TRY(boot());
  if (spec_.timeout) timeout_.arm(*spec_.timeout);
  SNUG_TRY(loop_->run());
  stop_machine(report_.state);
  console_->finish(kOutputPatience);
  return report_;
}

void Runner::stop_machine(RunState state) {
  if (!machine_) return;
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
  if (spec_.on_panic != OnPanic::kIgnore && console_->tail().panic_line())
    return on_crash("the guest's kernel panicked", {});
  if (spec_.on_reboot == OnReboot::kExit) return finish(RunState::kReset, machine_->guest_status(), {});
  restart();
}

void Runner::on_crash(const std::string& what, std::string detail) {
  if (spec_.on_panic == OnPanic::kRestart) {
    log_warn("{}; {}", what, last_console_line());
    return restart();
  }
  const auto panic = console_->tail().panic_line();
  finish(RunState::kCrashed, kStatusPanic,
         panic ? fmt::format("{}: {}; {}", what, *panic, last_console_line())
               : fmt::format("{}; {}", what, last_console_line()),
         std::move(detail));
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
    ::raise(SIGSTOP);
    return console_->resume_terminal();
  }
  const char* name = ::sigabbrev_np(number);
  const auto now = std::chrono::steady_clock::now();
  // timeout(1) signals the process and then its group: that is one wish, not two.
  if (ending_signal_ != 0 && now - ending_since_ < kSameSignal) return;
  if (ending_signal_ != 0 || !machine_)
    return finish(RunState::kKilled, 128 + number, fmt::format("stopped by SIG{}", name));
  ending_signal_ = number;
  ending_since_ = now;
  log_warn("SIG{}: power button pressed; the guest has {} (a second signal stops it at once)", name,
           spec_.grace_period ? seconds_text(*spec_.grace_period) : "all the time it wants");
  if (spec_.grace_period) grace_.arm(*spec_.grace_period);
  machine_->press_power_button();
}

void Runner::on_boot_timeout() {
  finish(RunState::kKilled, kStatusTimeout,
         fmt::format("the guest did not open its console within boot_timeout ({}); {}",
                     seconds_text(*spec_.boot_timeout), last_console_line()));
}

std::string Runner::last_console_line() {
  const auto line = console_->tail().last_line();
  return line.empty() ? "the console is empty" : fmt::format("last console line: {}", line);
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
