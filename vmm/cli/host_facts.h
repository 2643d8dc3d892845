// What a machine that is sent must find where it goes on, told before anything of it has gone: the CPU that
// hosts give their guests, and disks that stay where they are. JSON. Main thread.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "vmm/base/result.h"

namespace snug::cli {

// Of this host. `disks`: of disks_elsewhere(). Errors: KVM.
Result<std::string> host_facts(const nlohmann::json& disks);
// Whether all of it is here; what this snug does not know is of no account. Errors: what is not; they are
// none.
Result<void> check_host_facts(std::string_view facts);

}  // namespace snug::cli
