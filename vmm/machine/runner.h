// Runs a guest from its first boot to its end: boots, restarts after resets, keeps the time limits, turns
// signals into the power button, and says how it ended.
//
// Others steer it through its control interface, when it has one: ControlTarget.
//
// Thread: run() owns the calling thread, which becomes the loop's. Call it before any other thread exists.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vmm/agent/agent_request.h"
#include "vmm/base/result.h"
#include "vmm/control/bounded_log.h"
#include "vmm/control/console_server.h"
#include "vmm/control/control_server.h"
#include "vmm/control/vm_directory.h"
#include "vmm/core/event_loop.h"
#include "vmm/kvm/kvm.h"
#include "vmm/machine/console.h"
#include "vmm/machine/disk_file.h"
#include "vmm/machine/guest_commands.h"
#include "vmm/machine/host_port.h"
#include "vmm/machine/kernel_cache.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/signals.h"
#include "vmm/machine/tap.h"
#include "vmm/machine/user_network.h"
#include "vmm/machine/vsock_hub.h"
#include "vmm/spec/spec.h"

namespace snug {

// Exit statuses of `snug run` (README, "Exit status").
constexpr int kStatusPanic = 123;
constexpr int kStatusTimeout = 124;
constexpr int kStatusFailure = 125;

struct RunReport {
  RunState state = RunState::kFailed;
  int exit_status = kStatusFailure;
  std::string message;  // one line for a person, "" when there is nothing to say
  std::string detail;   // registers, console tail; several lines or ""
  ExitStats exits;      // of all boots together
  uint32_t boots = 0;
  uint64_t cpu_ns_at_first_run = 0;  // of the first boot
};

struct RunnerOptions {
  // What the machine is started for, through the agent in it; it ends with them. The caller's; nullptr: it
  // runs until it ends by itself.
  const CommandPlan* commands = nullptr;
  // Where the machine can be found: its control interface is served there. The caller's; nullptr: nowhere.
  const VmDirectory* directory = nullptr;
  // Our own streams are nobody's: a console on stdio goes into the directory, as a log and for those who
  // attach, and what commands print goes into another log there.
  bool background = false;
  // The guest runs: called once, on the loop's thread.
  std::function<void()> started;
  // The guest was asked to power off and has this long; on the loop's thread.
  std::function<void(const TimeLimit& grace)> ending;
};

class Runner final : private ControlTarget {
 public:
  // `spec` is complete: kernel and initrd are filled in. `kvm` and `spec` are the caller's.
  static Result<std::unique_ptr<Runner>> create(const kvm::Kvm& kvm, const Spec& spec, RunnerOptions options);
  ~Runner() override = default;
  // Returns when the guest has ended. Errors: set-up of the first boot failed.
  Result<RunReport> run();
  // Of the commands that have ended, in order.
  const std::vector<CommandResult>& command_results() const;

 private:
  // How the machine ended before its command did.
  struct Ending {
    RunState state;
    int exit_status;
    std::string message;
    std::string detail;
  };

  Runner(const kvm::Kvm& kvm, const Spec& spec, RunnerOptions options)
      : kvm_(kvm), spec_(spec), options_(std::move(options)) {}
  // The host's ends (runner_ends.cpp)
  Result<void> open_inputs();
  Result<void> open_vsock();
  Result<void> open_ports();
  Result<void> open_console();
  Result<void> serve_console();
  Result<void> open_control();

  // ControlTarget (runner_control.cpp)
  VmInfo info() const override;
  VmUsage usage() const override;
  bool ask_guest() override;
  bool guest_has_answered() const override;
  Result<void> pause() override;
  Result<void> resume() override;
  Result<void> press_power_button() override;
  Result<void> stop(std::optional<std::chrono::milliseconds> grace) override;
  void kill() override;

  Result<void> boot();
  Result<void> start_networks(MachineConfig& config);
  Result<std::unique_ptr<NetBackend>> start_user_network(size_t index);
  void on_broken_network(size_t index);
  void stop_machine(RunState state);
  void restart();

  void on_guest_event(GuestEvent event, uint32_t value);
  void on_reset();
  void on_crash(const std::string& what, std::string detail);
  void on_vcpu_end(VcpuReport report);
  void on_signal(int number);
  void on_continue();
  void on_boot_timeout();
  void on_grace_end();
  // Asks the guest to power off, as `signal` would; one that is paused runs on for it.
  void begin_ending(int signal, TimeLimit grace);

  // The commands (runner_commands.cpp)
  Result<void> open_commands();
  void listen_for_agent();
  void on_agent_call();
  const char* agent_state() const;
  bool commands_under_way() const { return commands_ && !commands_->over(); }
  void end_without_command(Ending ending);
  void on_guest_end(RunState state, const std::string& what);
  void on_commands_end(int status, std::string message);
  void power_off_by_agent();
  void set_guest_clock();
  void on_command_signal(int number);
  TimeLimit boot_limit() const;
  void finish(RunState state, int exit_status, std::string message, std::string detail = {});
  std::string last_console_line();
  std::string console_lines();

  const kvm::Kvm& kvm_;
  const Spec& spec_;
  RunnerOptions options_;
  std::chrono::system_clock::time_point created_at_ = std::chrono::system_clock::now();
  UniqueFd kernel_;
  KernelCache kernel_cache_;
  std::vector<UniqueFd> initrds_;
  std::vector<DiskFile> disks_;
  std::vector<NetSpec> nics_;
  std::map<size_t, Tap> taps_;  // of those of mode tap, by index
  std::unique_ptr<EventLoop> loop_;
  SignalWatch signals_;
  SignalWatch command_signals_;
  std::unique_ptr<Console> console_;
  std::vector<std::unique_ptr<HostPort>> consoles_;  // as the spec has them
  std::vector<std::unique_ptr<HostPort>> channels_;
  std::unique_ptr<ConsoleServer> console_server_;
  std::optional<BoundedLog> output_log_;  // of commands, in the background
  EventLoop::Timer timeout_;
  EventLoop::Timer boot_timeout_;
  EventLoop::Timer grace_;
  EventLoop::Timer settled_;                                 // set-up is long over
  std::map<size_t, std::unique_ptr<UserNetwork>> networks_;  // of this boot and mode user, by index
  std::unique_ptr<VsockHub> vsock_;
  std::unique_ptr<Machine> machine_;
  std::unique_ptr<GuestCommands> commands_;
  std::unique_ptr<AgentRequest> power_off_;
  std::unique_ptr<AgentRequest> set_time_;
  std::optional<Ending> ending_;
  int command_status_ = kStatusFailure;  // once the commands are over
  std::string command_message_;
  RunReport report_;
  std::chrono::steady_clock::time_point boot_began_;
  uint32_t agent_called_in_ = 0;  // the last boot in which it did
  std::chrono::steady_clock::time_point guest_asked_;
  bool finished_ = false;
  EndingWish wish_;
  int ending_signal_ = 0;  // the signal that pressed the power button
  TimeLimit ending_grace_;
  std::unique_ptr<ControlServer> control_;  // last: goes before what it asks
};

}  // namespace snug
