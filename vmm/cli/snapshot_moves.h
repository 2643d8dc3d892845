// snug fork, send, receive: snapshots that nobody keeps. Main thread.
#pragma once

#include <string>
#include <vector>

#include "vmm/cli/command_set.h"

namespace snug::cli {

// Adds them to the command line. `behind`: the words behind "--", until one of them has run.
void add_moving_commands(CommandSet& commands, const std::vector<std::string>& behind);

}  // namespace snug::cli
