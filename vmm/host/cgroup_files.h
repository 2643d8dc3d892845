// Control groups of the host (cgroup v2): where this process is among them, and the files by which one is
// made and told what it may have.
//
// Thread: any; of own processes only, as the kernel sees them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug {

inline constexpr const char* kCgroup2Advice =
    "boot the host with systemd.unified_cgroup_hierarchy=1 on its kernel's command line, which leaves all "
    "controllers to cgroup v2";

// Each function returns 0 or an errno. Virtual for tests, which have a folder that keeps the kernel's rules.
class CgroupFiles {
 public:
  virtual ~CgroupFiles() = default;
  virtual int read(const std::string& path, std::string& text) const;
  // In one piece, into a file that is there.
  virtual int write(const std::string& path, std::string_view text);
  virtual int make(const std::string& folder);
  // EBUSY: processes or other groups are in it.
  virtual int remove(const std::string& folder);
  // For whoever changes what a group gives to those in it, or looks before it does: one at a time, as long as
  // the descriptor is open. Waits. None: this host cannot, and nobody waits.
  UniqueFd lock(const std::string& folder) const;
  // systemd has marked it as somebody else's to divide (Delegate=yes); systemd 251 or newer, or for root.
  virtual bool is_marked_delegated(const std::string& folder) const;
};

// Where a process is.
struct OwnCgroup {
  std::string mount;            // "/sys/fs/cgroup"
  std::string path;             // its folder, in there
  std::vector<std::string> v1;  // controllers that cgroup v1 has on this host, which v2 has not
};

// `proc`: the process, "/proc/self". Errors: this host has no cgroup v2, or it is not mounted where this
// process could see its own.
Result<OwnCgroup> own_cgroup(const std::string& proc = "/proc/self");

// Whether a group may be made in that folder: 0, or an errno.
int may_make_in(const std::string& folder);
// How many groups there are in it.
size_t groups_in(const std::string& folder);
// Whether others than this process are in it, and that matters: to the host's root it does not.
bool has_other_processes(const CgroupFiles& files, const std::string& folder);

// The words of a file such as cgroup.controllers, or of cgroup.procs; none when it cannot be read.
std::vector<std::string> cgroup_words(const CgroupFiles& files, const std::string& path);

}  // namespace snug
