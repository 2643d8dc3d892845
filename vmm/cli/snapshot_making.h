// A machine into a snapshot, and out of it: what the commands about snapshots have in common. Main thread.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "vmm/base/result.h"
#include "vmm/cli/command.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/snapshot_store.h"
#include "vmm/control/vm_directory.h"
#include "vmm/spec/spec.h"

namespace snug::cli {

// As its control interface tells (GET /v1/vm). Errors: it is none that this program can read.
Result<Spec> spec_of(const nlohmann::json& machine);

// All that a snapshot consists of; the machine goes on, or stays paused. Returns what its control interface
// has said of it. Errors: the machine cannot be saved; its disks; the file system.
Result<nlohmann::json> save_machine(const FoundVm& vm, NewSnapshot& made);

// What a machine that begins there may have otherwise than the one that was saved.
void add_beginning_flags(Command command, RunArguments& how);

// Runs a machine that begins where that one stood, with its name or, where a machine has that, one like it;
// `name`: another, unless "". `how`: in the background or not. Returns the exit status.
int begin_there(const StoredSnapshot& snapshot, const std::string& name, RunArguments how);

}  // namespace snug::cli
