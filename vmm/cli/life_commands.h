// The commands for machines that run: ps, logs, attach, stop, kill, pause, resume, wait, inspect, stats, rm.
// Main thread.
#pragma once

#include <array>
#include <functional>
#include <string_view>

namespace CLI {
class App;
}

namespace snug::cli {

// Adds them to the command line; the one that is given sets `chosen`.
void add_life_commands(CLI::App& app, std::function<int()>& chosen);

// Those that take names of machines, for completion.
inline constexpr std::array<std::string_view, 12> kCommandsOnMachines{
    "exec", "shell", "logs", "attach", "stop", "kill", "pause", "resume", "wait", "inspect", "stats", "rm"};

}  // namespace snug::cli
