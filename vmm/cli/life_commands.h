// The commands for machines that run: ps, logs, attach, stop, kill, pause, resume, wait, inspect, stats, rm.
// Main thread.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace snug::cli {

// Adds them to the command line; the one that is given sets `chosen`.
void add_life_commands(CLI::App& app, std::function<int()>& chosen);

}  // namespace snug::cli
