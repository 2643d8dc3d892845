// What is said of a command line that cannot be understood. Main thread.
#pragma once

#include <span>

namespace CLI {
class App;
class ParseError;
}  // namespace CLI

namespace snug::cli {

// One line that says what is wrong, with what was probably meant, and one that says where help is; on stderr.
// Returns the exit status.
int explain_usage(const CLI::App& app, std::span<char* const> arguments, const CLI::ParseError& error);

}  // namespace snug::cli
