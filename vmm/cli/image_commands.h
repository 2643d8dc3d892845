// snug image: list, build, pull, inspect, rm, prune. Main thread.
#pragma once

#include "vmm/cli/command_set.h"

namespace snug::cli {

// Adds them to the command line.
void add_image_commands(CommandSet& commands, CommandSet::Action& chosen);

}  // namespace snug::cli
