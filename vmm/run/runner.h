// Runs a guest from its first boot to its end: opens the host's ends, boots, takes signals, serves the
// control interface, and says how it ended.
//
// Thread: run() owns the calling thread, which becomes the loop's. Call it before any other thread exists.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/control/control_server.h"
#include "vmm/control/vm_directory.h"
#include "vmm/core/event_loop.h"
#include "vmm/host/signals.h"
#include "vmm/kvm/kvm.h"
#include "vmm/run/guest_commands.h"
#include "vmm/run/host_ends.h"
#include "vmm/run/life_cycle.h"
#include "vmm/run/machine_control.h"
#include "vmm/run/run_report.h"
#include "vmm/spec/spec.h"

namespace snug {

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

class Runner {
 public:
  // `spec` is complete: kernel and initrd are filled in. `kvm` and `spec` are the caller's.
  static Result<std::unique_ptr<Runner>> create(const kvm::Kvm& kvm, const Spec& spec, RunnerOptions options);
  // Returns when the guest has ended. Errors: set-up of the first boot failed.
  Result<RunReport> run();
  // Of the commands that have ended, in order.
  const std::vector<CommandResult>& command_results() const;

 private:
  explicit Runner(RunnerOptions options) : options_(std::move(options)) {}
  Result<void> watch_signals();
  Result<void> serve_control(const Spec& spec);
  void on_signal(int number);
  void on_suspend();
  void on_continue();

  RunnerOptions options_;
  std::unique_ptr<EventLoop> loop_;
  SignalWatch signals_;
  SignalWatch command_signals_;
  EndingWish wish_;
  EventLoop::Timer settled_;  // set-up is long over
  std::unique_ptr<HostEnds> ends_;
  std::unique_ptr<LifeCycle> life_;
  std::unique_ptr<MachineControl> target_;
  std::unique_ptr<ControlServer> control_;  // last: goes before what it asks
};

}  // namespace snug
