// The commands for a guest that runs already: exec, shell, cp. Main thread.
#pragma once

#include <string>
#include <vector>

#include "vmm/cli/command_set.h"

namespace snug::cli {

// Adds them to the command line. `behind`: the words behind "--", until one of them has run.
void add_guest_commands(CommandSet& commands, const std::vector<std::string>& behind);

}  // namespace snug::cli
