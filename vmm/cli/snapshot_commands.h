// snug snapshot, snug restore. Main thread.
#pragma once

#include <functional>

#include "vmm/cli/commands.h"

namespace CLI {
class App;
}

namespace snug::cli {

// `chosen`: what is to be done, when one of them was given.
void add_snapshot_commands(CLI::App& app, std::function<int()>& chosen);

}  // namespace snug::cli
