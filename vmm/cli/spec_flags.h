// The keys of the spec as flags of `snug run`. Main thread.
#pragma once

#include <vector>

#include "vmm/cli/command.h"
#include "vmm/spec/flags.h"

namespace snug::cli {

// In help groups. `values` must outlive the parsing.
void add_flags(Command command, const std::vector<KeyFlag>& flags, FlagValues& values);

}  // namespace snug::cli
