// The ports of this host that lead to a guest: whether they can be had, and which where any will do.
//
// Thread: any. What is free now may be taken a moment later: passt, which opens them, has the last word.
#pragma once

#include <vector>

#include "vmm/base/result.h"
#include "vmm/spec/spec.h"

namespace snug {

// Errors: taken; not this user's; an address that is not this host's.
Result<void> check_port(const PortForward& forward);

// Gives those a port that leave it to the host: free ones, each another. Errors: none is free.
Result<void> choose_ports(std::vector<PortForward>& ports);

}  // namespace snug
