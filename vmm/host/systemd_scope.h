// Asks the systemd of this user's session, or of the system for root, for a scope: a control group of its
// own, which systemd makes, puts processes into and removes with the last of them.
//
// By busctl, a program of systemd's own package that is found at run time: it is there wherever there is a
// systemd to be asked.
//
// Thread: one that may wait some milliseconds.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/host/cgroup_limits.h"

namespace snug {

class SystemdManager {
 public:
  // `run`: where it leaves its traces, "/run". Errors: there is none that this user can ask, and what to do.
  static Result<SystemdManager> find(const std::string& run = "/run");

  // Where its units are, below the mount of cgroups: "" or "/user.slice/user-1000.slice/user@1000.service".
  // Errors: what it says; it does not answer.
  Result<std::string> control_group() const;
  // Asks for the scope `unit` of that process; it comes a moment later, or does not. Errors: what it says.
  Result<void> start_scope(const std::string& unit, const CgroupLimits& limits, pid_t process) const;

  // "systemd", for a person.
  const std::string& called() const { return called_; }

  // What came of a call.
  struct Answer {
    bool in_time = false;
    bool refused = false;
    std::string said;
  };

 private:
  SystemdManager() = default;
  // Errors: it was refused, in time.
  Result<Answer> call(const std::vector<std::string>& words) const;

  std::string called_;
  std::string busctl_;   // its path
  std::string address_;  // of the bus; empty: the system's
};

}  // namespace snug
