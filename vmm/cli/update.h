// `snug update`: the program as it is now in the place of the process that runs a machine. Main thread.
#pragma once

#include "vmm/cli/command_set.h"

namespace snug::cli {

void add_update_commands(CommandSet& commands);

}  // namespace snug::cli
