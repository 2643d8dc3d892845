// Which system calls the process that serves shares makes once it is locked in, and why. One list for all its
// threads: each of them serves requests, or tells the others to.
#pragma once

#include <vector>

#include "vmm/jail/filter.h"

namespace snug::jail {

std::vector<CallRule> share_rules();

}  // namespace snug::jail
