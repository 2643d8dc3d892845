// The commands for machines that run: ps, logs, attach, stop, kill, pause, resume, wait, inspect, stats, rm.
// Main thread.
#pragma once

#include "vmm/base/result.h"
#include "vmm/cli/command_set.h"
#include "vmm/control/vm_directory.h"

namespace snug::cli {

// Adds them to the command line.
void add_life_commands(CommandSet& commands);

// At once; waits for its end. Errors: it does not end.
Result<void> kill_machine(const FoundVm& vm);

}  // namespace snug::cli
