// Reaching the sockets of a guest that runs. Main thread.
#pragma once

#include <string>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug::cli {

// A stream to the agent in a guest. `machine`: its name, or the path of its vsock socket when there is a
// slash in it. A guest that still boots is waited for. Errors: no such machine; it has no socket device; it
// is paused; nobody answers.
Result<UniqueFd> connect_to_agent(const std::string& machine);

}  // namespace snug::cli
