// The commands for machines that run: ps, logs, attach, stop, kill, pause, resume, wait, inspect, stats, rm.
// Main thread.
#pragma once

#include "vmm/cli/command_set.h"

namespace snug::cli {

// Adds them to the command line.
void add_life_commands(CommandSet& commands);

}  // namespace snug::cli
