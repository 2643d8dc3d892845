// The process behind the wall: it boots the machine, runs its vCPUs, devices and loop, serves the control
// interface, and says how it all ended. What it has open it was given; for the rest it asks its warden.
//
// Thread: run() owns the calling thread, which becomes the loop's, and is the only one before.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/control/control_server.h"
#include "vmm/core/event_loop.h"
#include "vmm/host/signals.h"
#include "vmm/jail/steps.h"
#include "vmm/kvm/kvm.h"
#include "vmm/run/host_ends.h"
#include "vmm/run/life_cycle.h"
#include "vmm/run/machine_control.h"
#include "vmm/run/run_report.h"
#include "vmm/run/warden_link.h"
#include "vmm/spec/spec.h"

namespace snug {

class MachineProcess {
 public:
  // All of it is the caller's and outlives this.
  struct Given {
    const kvm::Kvm& kvm;
    bool native = false;  // that KVM is one that runs kernel mode on the CPU
    const Spec& spec;
    EventLoop& loop;
    HostEnds& ends;
    WardenLink& warden;
    const jail::Split& split;
    const CommandPlan* commands = nullptr;
    const HealthPlan* health = nullptr;
    VmDirectory* directory = nullptr;
    UniqueFd record;                        // for tests: where its system calls are noted (vmm/jail); or none
    FrontFiles front;                       // of the warden's side; none without `control`
    UniqueFd control;                       // the listening socket of its interface; or none
    int known_pid = 0;                      // by which the machine is known
    std::vector<std::string> jail_missing;  // of the share server's jail
    bool takes_over = false;                // from another process, of which `ends` are
    std::string program;                    // the version of this one, for those who ask
    std::function<void()> leave_terminal;   // before the guest runs; may be empty
    std::function<int(const RunReport&, const std::vector<CommandResult>&)> ended;
  };
  explicit MachineProcess(Given given) : given_(std::move(given)) {}

  // Returns when the machine has ended and the warden knows how, or that it could not be set up.
  void run();
  // Ctrl-A x.
  void quit() { life_->finish(RunState::kKilled, 0, "quit"); }

 private:
  Result<void> begin();
  Result<void> lock_in();
  Result<void> take_over();
  Result<void> before_first_run();
  void end();
  void on_signal(int number, bool own_terminal);
  void on_suspend();
  void on_continue();

  Given given_;
  EndingWish wish_;
  EventLoop::Timer settled_;  // set-up is long over
  uint64_t warden_cpu_ns_ = 0;
  std::vector<std::string> jail_missing_;
  UniqueFd pagemap_;                               // for snapshots
  bool taken_over_ = false;                        // and the process before is gone
  FormerLife former_;                              // of a machine that is taken over
  std::optional<CommandPlan> plan_;                // of what goes on in that
  std::function<void(ThreadKind)> thread_begins_;  // of a machine that is locked in
  std::unique_ptr<LifeCycle> life_;
  std::unique_ptr<MachineControl> target_;
  std::unique_ptr<ControlServer> control_;  // last: goes before what it asks
};

}  // namespace snug
