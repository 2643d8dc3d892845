// A machine as its control interface sees it.
//
// Thread: the loop's.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "vmm/control/control_server.h"
#include "vmm/control/vm_directory.h"
#include "vmm/host/cgroup_gauges.h"
#include "vmm/run/host_ends.h"
#include "vmm/run/life_cycle.h"
#include "vmm/spec/spec.h"

namespace snug {

// What is told of what lies in front of the wall, opened there: behind it nothing can be.
struct FrontFiles {
  struct Process {
    UniqueFd stat;  // of /proc
    UniqueFd statm;
  };
  Process warden;
  Process share_server;  // not open: there is none
  std::string cgroup;    // the folder of the machine's control group; or none
  CgroupGauges gauges;

  // In front of the wall. `warden`, `share_server`: numbers of processes, the latter or -1. Errors: /proc
  // cannot be read.
  static Result<FrontFiles> open(const std::string& cgroup, pid_t warden, pid_t share_server);
};

class MachineControl final : public ControlTarget {
 public:
  // What a process asks about itself, opened while it still could.
  struct Own {
    int pid = 0;     // by which this machine is known: the warden's
    UniqueFd smaps;  // of this process
    std::vector<std::string> jail_missing;
    FrontFiles front;
    std::string program;      // its version
    uint64_t created_at = 0;  // seconds since 1970
  };
  // All else is the caller's and outlives this.
  MachineControl(Own own, const Spec& spec, const VmDirectory& directory, const HostEnds& ends,
                 LifeCycle& life)
      : own_(std::move(own)), spec_(spec), directory_(directory), ends_(ends), life_(life) {}

  VmInfo info() const override;
  VmUsage usage() const override;
  bool ask_guest() override;
  bool guest_has_answered() const override;
  Result<void> pause() override;
  Result<void> resume() override;
  Result<void> press_power_button() override;
  Result<void> stop(std::optional<std::chrono::milliseconds> grace) override;
  void kill() override;
  void snapshot(SnapshotFiles files, std::function<void(Result<SnapshotTaken>)> done) override;
  Result<void> send(SnapshotFiles files, SendingEnds ends) override;
  void update(std::function<void(Error)> failed) override { life_.update(std::move(failed)); }

 private:
  std::optional<BalloonStatus> balloon() const;
  VmShare share_info(const ShareSpec& share) const;

  Own own_;
  const Spec& spec_;
  const VmDirectory& directory_;
  const HostEnds& ends_;
  LifeCycle& life_;
  std::chrono::steady_clock::time_point guest_asked_;
};

}  // namespace snug
