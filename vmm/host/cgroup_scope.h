// The control group of a machine with limits: all of its processes are in it, the warden, the machine's
// process and passt. Asked of systemd where there is one to be asked, else made below the group that snug is
// started in.
//
// Thread: the only one of its process, before it is split in two; then the warden's.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/host/cgroup_files.h"
#include "vmm/host/cgroup_limits.h"

namespace snug {

// The host, as far as control groups go; others in tests.
struct CgroupHost {
  CgroupFiles& files;
  std::string proc = "/proc/self";
  std::string run = "/run";
};

class CgroupScope {
 public:
  struct Request {
    CgroupLimits limits;  // at least one
    std::string name;     // the machine's
    // Before snug makes a group itself: its folder, for those who remove what a killed machine has left. May
    // be empty.
    std::function<Result<void>(const std::string& folder)> about_to_make;
  };

  // This process, and what it will start, is in the group from now on. Errors: none can be had in which all
  // of the limits hold, and what to do.
  static Result<std::unique_ptr<CgroupScope>> enter(const CgroupHost& host, const Request& request);
  // Of a group that snug has made: back to where this process was, and removed once all others are gone. One
  // of systemd's goes with the last process.
  ~CgroupScope();
  CgroupScope(const CgroupScope&) = delete;
  CgroupScope& operator=(const CgroupScope&) = delete;

  // Its folder.
  const std::string& path() const { return path_; }
  // How many processes the kernel has killed in it for want of memory.
  uint64_t killed_for_memory() const;

 private:
  CgroupScope(const CgroupHost& host, const Request& request) : host_(host), request_(request) {}
  Result<void> enter_any();
  Result<void> enter_one_of_systemd(const std::string& unit);
  Result<void> wait_until_in(const std::string& unit);
  Result<void> enter_one_below(const OwnCgroup& own);
  Result<void> divide(const std::string& parent);
  Result<void> set_limits();
  Result<void> join();
  void leave();
  int go_back();
  int remove_when_empty();

  CgroupHost host_;
  Request request_;
  std::string path_;
  // Of a group that we have made.
  std::string parent_;                // where we came from; empty: not made by us
  std::vector<std::string> enabled_;  // controllers that the parent gives to its children because of us
  bool joined_ = false;
};

// What could be had here.
struct LimitsSurvey {
  struct Missing {
    std::string keys;  // "cpu, memory"
    Error why;
  };
  std::string by;  // whom it is asked of
  std::vector<CgroupLimit> had;
  std::vector<Missing> missing;
};
LimitsSurvey survey_limits(const CgroupHost& host);

}  // namespace snug
