// Runs a guest from its first boot to its end: opens the host's ends, then becomes two processes, on either
// side of a wall: the warden (warden.h), which has what was opened by name, and the machine's process
// (machine_process.h), which is the guest's as soon as it breaks out of a device or of KVM.
//
// Thread: the calling one; call before any other thread exists.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/control/vm_directory.h"
#include "vmm/core/event_loop.h"
#include "vmm/host/cgroup_scope.h"
#include "vmm/jail/process.h"
#include "vmm/kvm/kvm.h"
#include "vmm/run/guest_commands.h"
#include "vmm/run/handed_ends.h"
#include "vmm/run/health_check.h"
#include "vmm/run/host_ends.h"
#include "vmm/run/machine_process.h"
#include "vmm/run/run_report.h"
#include "vmm/spec/spec.h"

namespace snug {

struct RunnerOptions {
  // What the machine is started for, through the agent in it; it ends with them. The caller's; nullptr: it
  // runs until it ends by itself.
  const CommandPlan* commands = nullptr;
  // How it is seen that what runs in it is well, with commands or without. The caller's; nullptr: nothing
  // tells.
  const HealthPlan* health = nullptr;
  // Where the machine can be found: its control interface is served there. The caller's; nullptr: nowhere.
  VmDirectory* directory = nullptr;
  // Our own streams are nobody's: a console on stdio goes into the directory, as a log and for those who
  // attach, and what commands print goes into another log there.
  bool background = false;
  // The folder of a snapshot, where the machine begins; "": it boots.
  std::string snapshot;
  std::string snapshot_of;  // the name of the machine that was saved

  std::string program;  // the version of this one, for those who ask

  // In the warden. The guest runs: called once.
  std::function<void()> started;
  // In the warden. The guest was asked to power off and has this long.
  std::function<void(const TimeLimit& grace)> ending;
  // In the machine's process. The guest is about to run, in the background: leave the terminal.
  std::function<void()> leave_terminal;
  // In the machine's process, at the end: tells the person, and returns the exit status. The commands that
  // have ended, in order.
  std::function<int(const RunReport&, const std::vector<CommandResult>&)> ended;
};

class Runner {
 public:
  // `spec` is complete: kernel and initrd are filled in. `kvm` and `spec` are the caller's.
  static Result<std::unique_ptr<Runner>> create(const kvm::Kvm& kvm, const Spec& spec, RunnerOptions options);
  // Of a machine that another process runs so far, for its warden, which has started this one. `spec` and
  // `handed` are of `papers`. Errors: what cannot be taken over.
  static Result<std::unique_ptr<Runner>> adopt(const kvm::Kvm& kvm, const Spec& spec, RunnerOptions options,
                                               const Papers& papers, HandedEnds handed);
  // In place of run(): makes the machine's process, which is the warden's, tells that, and ends this one
  // without a further step, since both have the same event loop open. Returns only what kept it from that.
  Error hand_to_warden();
  // Returns, in the warden, when the machine has ended; its process does not return. Errors: set-up of the
  // first boot failed.
  Result<MachineEnd> run();

 private:
  Runner(const kvm::Kvm& kvm, const Spec& spec, RunnerOptions options)
      : kvm_(kvm), spec_(spec), options_(std::move(options)) {}
  Result<void> open();
  Result<void> limit();
  [[noreturn]] void be_the_machine(const jail::Split& split, UniqueFd calls, UniqueFd news, int known_pid);

  const kvm::Kvm& kvm_;
  const Spec& spec_;
  RunnerOptions options_;
  CgroupFiles cgroup_files_;
  std::unique_ptr<CgroupScope> scope_;  // of a machine with limits; goes when all else has gone
  bool native_ = false;
  std::unique_ptr<EventLoop> loop_;  // the machine's process runs it
  std::unique_ptr<HostEnds> ends_;
  UniqueFd record_;                                  // see MachineProcess::Given
  FrontFiles front_;                                 // see there
  HandedEnds handed_;                                // of adopt(): the sockets
  int known_pid_ = 0;                                // by which the machine is known, of adopt()
  UniqueFd control_;                                 // the listening socket of its interface; or none
  std::vector<std::string> jail_missing_;            // of the share server
  std::unique_ptr<MachineProcess> machine_process_;  // in that process
};

}  // namespace snug
