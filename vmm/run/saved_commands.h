// What a machine is started for, beside its snapshot: the commands that are not over yet, the first of which
// may run in the guest already. JSON; texts may hold any bytes, each of which is one character there.
//
// Thread: any.
#pragma once

#include <string>
#include <string_view>

#include "vmm/base/result.h"
#include "vmm/run/guest_commands.h"

namespace snug {

// "": all of them are over.
std::string saved_commands(const CommandPlan& plan, const GuestCommands::Progress& progress);
// Of a machine that is started for no command, and is looked after.
std::string saved_health(const HealthPlan& health);
// A plan for the guest that goes on. Errors: no such JSON.
Result<CommandPlan> parse_saved_commands(std::string_view json);

}  // namespace snug
