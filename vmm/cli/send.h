// snug send: a machine that runs goes to another place, its memory while it runs, and once more what changes
// meanwhile; it stands still for what is left. Main thread.
#pragma once

#include <string>
#include <vector>

#include "vmm/cli/command_set.h"

namespace snug::cli {

// Adds it to the command line. `behind`: as add_moving_commands() has it.
void add_send_command(CommandSet& commands, const std::vector<std::string>& behind);

}  // namespace snug::cli
