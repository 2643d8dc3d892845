// The life of a machine: boots, restarts after resets, time limits, the power button, and how it ended.
//
// Thread: the loop's.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "vmm/base/result.h"
#include "vmm/core/event_loop.h"
#include "vmm/core/loop_thread.h"
#include "vmm/core/thread_kind.h"
#include "vmm/kvm/kvm.h"
#include "vmm/machine/machine.h"
#include "vmm/run/guest_agent.h"
#include "vmm/run/guest_commands.h"
#include "vmm/run/guest_networks.h"
#include "vmm/run/health_check.h"
#include "vmm/run/host_ends.h"
#include "vmm/run/run_limits.h"
#include "vmm/run/run_report.h"
#include "vmm/run/snapshot_taker.h"
#include "vmm/run/warden_link.h"
#include "vmm/spec/spec.h"

namespace snug {

class LifeCycle {
 public:
  // All of it is the caller's and outlives this.
  struct Environment {
    const kvm::Kvm& kvm;
    const Spec& spec;
    EventLoop& loop;
    HostEnds& ends;
    WardenLink& warden;
    // What the machine is started for; it ends with them. nullptr: it runs until it ends by itself.
    const CommandPlan* commands = nullptr;
    // How it is seen that what runs in it is well. nullptr: nothing tells.
    const HealthPlan* health = nullptr;
    // What a thread of the machine does first; may be empty.
    std::function<void(ThreadKind)> thread_begins;
    // The machine is built, and nothing of the guest has run yet. Errors: it is not to.
    std::function<Result<void>()> before_first_run;
    bool native = false;      // the host's KVM is one that runs kernel mode on the CPU
    const UniqueFd& pagemap;  // of this process
    // Of a machine that another process has run so far, or with no boots.
    FormerLife former;
    uint64_t created_at = 0;  // seconds since 1970
  };
  static Result<std::unique_ptr<LifeCycle>> create(const Environment& environment);

  // The first boot. Errors: set-up failed.
  Result<void> begin();
  // When the loop has been stopped, which this does when the machine has ended.
  RunReport end();

  // nullptr between two boots, and at the end.
  Machine* machine() { return machine_.get(); }
  const Machine* machine() const { return machine_.get(); }
  uint32_t boots() const { return report_.boots; }
  // Of the guest's agent: "none" or as GuestAgent::state() has it.
  const char* agent_state() const;
  // As GuestShares::outcome() has it.
  std::optional<std::string> share_outcome(const std::string& tag) const;
  // nullptr: the machine is not started for any.
  GuestCommands* commands() { return commands_.get(); }
  const GuestCommands* commands() const { return commands_.get(); }
  // nullptr: nothing tells how it is.
  const HealthCheck* health() const { return health_.get(); }

  // A signal that wants this process to end: the command's, or the power button; the second one stops the
  // guest at once.
  void on_ending_signal(int number);
  // The power button, or SIGTERM for the command, and a hard stop when it takes longer than `grace`. The
  // machine runs or is paused.
  void stop(const TimeLimit& grace);
  // The machine runs on, if it is paused.
  void resume();
  void set_guest_clock();
  void finish(RunState state, int exit_status, std::string message, std::string detail = {});
  GuestNetworks& networks() { return networks_; }
  // Another process takes the machine's place, and this one is killed; or it goes on here, and `failed` is
  // told why. Later, on the loop.
  using Updated = std::function<void(Error)>;
  void update(Updated failed);
  void on_update_ready();
  void on_update_failed(const std::string& why);
  // How long it stood still for the process that runs it now; nothing: it has run here from its start.
  std::optional<double> update_seconds() const { return update_seconds_; }
  uint32_t updates() const { return environment_.former.updates; }
  // As SnapshotTaker::take().
  void snapshot(SnapshotFiles files, SnapshotTaker::Done done);
  // As SnapshotTaker::send().
  Result<void> send(SnapshotFiles files, SendingEnds ends);

 private:
  // How the machine ended before its command did.
  struct Ending {
    RunState state;
    int exit_status;
    std::string message;
    std::string detail;
  };

  explicit LifeCycle(const Environment& environment);
  void open_commands();
  Result<void> open_health();
  Result<MachineConfig> prepare_boot();
  Result<void> build(MachineConfig config);
  Result<void> build_prepared(MachineConfig config);
  Result<void> build_with_template();
  Result<void> run_machine();
  void stop_machine(RunState state);
  void restart(const char* what = "the guest restarts");
  // Whether the next boot, or the one that is being built, begins where another machine stood.
  bool begins_saved() const { return ends_.saved && report_.boots == saved_boot_; }

  void on_guest_event(GuestEvent event, uint32_t value);
  void on_reset();
  void on_crash(const std::string& what, std::string detail);
  void on_vcpu_end(VcpuReport report);
  void on_boot_timeout();
  void on_grace_end();
  void on_mounts_end();
  // Asks the guest to power off, as `signal` would; one that is paused runs on for it.
  void begin_ending(int signal, const TimeLimit& grace);

  // Of the commands (life_of_commands.cpp)
  bool commands_under_way() const { return commands_ && !commands_->over(); }
  TimeLimit boot_limit() const;
  void end_without_command(Ending ending);
  void on_guest_end(RunState state, const std::string& what);
  void on_commands_end(int status, std::string message);
  void on_command_signal(int number);
  void on_agent_ready();
  // A template of the guest, if one is to be made of it. `waits`, `go_on`: see GuestAgent::Events.
  void on_untouched(bool waits, const std::function<void()>& go_on);
  // It has left one, and goes on as others will that begin with it.
  bool goes_on_from_template();
  // None can be made of it.
  void without_template(const std::function<void()>& go_on);
  bool on_agent_lost(const std::string& why, bool own);
  void note_touched();
  void tell_touched();
  // For a machine that began with a template and has done nothing yet. `own`: the template is none the worse.
  // True: it boots, or is about to.
  bool boots_after_all(const std::string& why, bool own = false);
  void on_share_failure(const std::string& why);

  // Of updates (life_of_updates.cpp)
  Result<void> can_be_updated() const;
  Result<void> begin_handing(bool ram_is_given);
  void tell_of_life(StateWriter& ends) const;
  void end_update(Error why);
  TimeLimit time_left() const;
  void takes_over();

  std::string last_console_line() const;
  std::string console_lines() const;

  Environment environment_;
  const Spec& spec_;
  EventLoop& loop_;
  HostEnds& ends_;
  RunLimits limits_;
  GuestNetworks networks_;
  // Makes machines and their threads: the loop's thread has no use for that while a guest runs.
  std::unique_ptr<LoopThread> builder_;
  std::unique_ptr<GuestAgent> agent_;  // of a machine with sockets
  std::unique_ptr<Machine> machine_;
  std::unique_ptr<SnapshotTaker> snapshots_;  // goes before the machine
  std::unique_ptr<GuestCommands> commands_;
  std::unique_ptr<HealthCheck> health_;
  std::optional<Ending> ending_;
  int command_status_ = kStatusFailure;  // once the commands are over
  std::string command_message_;
  RunReport report_;
  bool finished_ = false;
  uint64_t began_ = 0;  // its first boot, as FormerLife has times
  std::optional<double> update_seconds_;
  Updated updated_;               // of an update that is under way
  uint32_t saved_boot_ = 0;       // which of its boots begins with ends_.saved, if that is there
  bool boots_after_all_ = false;  // its template was none
  bool notes_touched_ = false;    // the builder has looked at its memory, or does
  std::string touched_;           // what it has found, to be told
  int ending_signal_ = 0;         // the signal that pressed the power button
  TimeLimit ending_grace_;
};

// "1.5s"
std::string seconds_text(std::chrono::milliseconds duration);

}  // namespace snug
