#include "vmm/host/cgroup_advice.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace snug {
namespace {

// A user manager of systemd gives on what user@.service is given.
constexpr const char* kUserManager = "/user@";

std::string advice_for(const OwnCgroup& own, const std::string& folder,
                       const std::vector<std::string_view>& controllers) {
  if (folder == own.mount)
    return "in a container: have it given from outside; else the kernel is built without it, or was told so "
           "(cgroup_disable=, cgroup_enable= on its command line)";
  if (folder.find(kUserManager) != std::string::npos)
    return fmt::format(
        "have it given to users' sessions: sudo systemctl edit user@.service, there [Service] and "
        "Delegate=cpu "
        "cpuset io memory pids, then log in anew (or sudo systemctl restart user@{}.service, which ends the "
        "session)",
        ::geteuid());
  std::string more;
  for (const std::string_view name : controllers) more += fmt::format("{}+{}", more.empty() ? "" : " ", name);
  return fmt::format(
      "have it given on by the group above: echo {} | sudo tee {}/cgroup.subtree_control (in a container: "
      "from "
      "outside)",
      more, folder.substr(0, folder.rfind('/')));
}

// "bash (4711)".
std::string process_name(const std::string& pid) {
  std::ifstream file("/proc/" + pid + "/comm");
  std::string name;
  std::getline(file, name);
  return name.empty() ? pid : fmt::format("{} ({})", name, pid);
}

}  // namespace

std::string keys_of(const std::vector<CgroupLimit>& limits) {
  std::string keys;
  for (const CgroupLimit& limit : limits) keys += fmt::format("{}{}", keys.empty() ? "" : ", ", limit.key);
  return keys;
}

std::vector<CgroupLimit> without_controller(const CgroupFiles& files, const std::string& folder,
                                            const std::vector<CgroupLimit>& limits) {
  const auto there = cgroup_words(files, folder + "/cgroup.controllers");
  std::vector<CgroupLimit> missing;
  for (const CgroupLimit& limit : limits)
    if (std::ranges::find(there, limit.controller) == there.end()) missing.push_back(limit);
  return missing;
}

Error no_controllers(const CgroupFiles& files, const OwnCgroup& own, const std::string& folder,
                     const std::vector<CgroupLimit>& missing) {
  const auto in_v1 = [&](std::string_view name) { return std::ranges::find(own.v1, name) != own.v1.end(); };
  std::vector<std::string_view> names;
  std::vector<std::string_view> v1;
  for (const CgroupLimit& limit : missing) {
    names.push_back(limit.controller);
    if (in_v1(limit.controller) || (limit.controller == "io" && in_v1("blkio")))
      v1.push_back(limit.controller);
  }
  if (!v1.empty()) return {fmt::format("on this host cgroup v1 has {}", fmt::join(v1, ", ")), kCgroup2Advice};
  const auto there = cgroup_words(files, folder + "/cgroup.controllers");
  return {fmt::format("the control group {} has no {}, it has {}", folder, fmt::join(names, ", "),
                      there.empty() ? "nothing" : fmt::format("{}", fmt::join(there, ", "))),
          advice_for(own, folder, names)};
}

Error cannot_make(const std::string& folder, int error) {
  const std::string what = fmt::format("no control group can be made in {}: {}", folder, errno_text(error));
  if (error == EROFS)
    return {what,
            "mount cgroups for writing; of a container: one that may (podman, docker: "
            "--cgroupns=private and a writable /sys/fs/cgroup)"};
  if (error == EACCES || error == EPERM)
    return {what,
            "have the group given to this user: Delegate=yes in the unit that starts snug, or chown the "
            "folder, its cgroup.procs and its cgroup.subtree_control"};
  return {what, {}};
}

Error is_shared(const CgroupFiles& files, const std::string& folder) {
  constexpr size_t kShown = 3;
  std::vector<std::string> others;
  const std::string own = std::to_string(::getpid());
  for (const std::string& pid : cgroup_words(files, folder + "/cgroup.procs"))
    if (pid != own) others.push_back(process_name(pid));
  const bool more = others.size() > kShown;
  others.resize(std::min(others.size(), kShown));
  return {fmt::format("the control group {} has other processes in it ({}{}), and so the kernel lets "
                      "nothing be shared out below it",
                      folder, fmt::join(others, ", "), more ? ", ..." : ""),
          "start snug alone in a group (systemd-run --user -p Delegate=yes snug run ...), or move the others "
          "into "
          "another one first"};
}

Error refuses(const std::string& folder, const CgroupLimit& limit, int error) {
  Error refused{fmt::format("{}/{}: {}", folder, limit.file, errno_text(error)), {}};
  if (error == ENOENT && limit.key == "io_weight")
    refused.hint =
        "this host's kernel knows no weights of disks (CONFIG_BLK_CGROUP_IOCOST, or the scheduler BFQ)";
  return refused;
}

}  // namespace snug
