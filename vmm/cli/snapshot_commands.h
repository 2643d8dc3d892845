// snug snapshot, snug restore. Main thread.
#pragma once

#include "vmm/cli/command_set.h"

#include "vmm/cli/commands.h"

namespace snug::cli {

// `chosen`: what is to be done, when one of them was given.
void add_snapshot_commands(CommandSet& commands, CommandSet::Action& chosen);

}  // namespace snug::cli
