// Why limits cannot be had, and what a person can do about it.
#pragma once

#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/host/cgroup_files.h"
#include "vmm/host/cgroup_limits.h"

namespace snug {

// "cpu, memory".
std::string keys_of(const std::vector<CgroupLimit>& limits);

// Those of the limits whose controllers the group in `folder` has not got.
std::vector<CgroupLimit> without_controller(const CgroupFiles& files, const std::string& folder,
                                            const std::vector<CgroupLimit>& limits);
// Why it has not got them, at least one.
Error no_controllers(const CgroupFiles& files, const OwnCgroup& own, const std::string& folder,
                     const std::vector<CgroupLimit>& missing);

// Why nothing can be made in `folder`.
Error cannot_make(const std::string& folder, int error);

// Why its controllers cannot be given on: other processes are in it.
Error is_shared(const CgroupFiles& files, const std::string& folder);

// A file of a group that refuses a value.
Error refuses(const std::string& folder, const CgroupLimit& limit, int error);

}  // namespace snug
