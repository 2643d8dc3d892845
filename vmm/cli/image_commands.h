// snug image: list, build, pull, inspect, rm, prune. Main thread.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace snug::cli {

// Adds them to the command line; the one that is given sets `chosen`.
void add_image_commands(CLI::App& app, std::function<int()>& chosen);

}  // namespace snug::cli
