// What is said of a command line that cannot be understood. Main thread.
#pragma once

#include <span>
#include <string>

#include "vmm/cli/command.h"

namespace snug::cli {

// One line that says what is wrong, with what was probably meant, and one that says where help is; on stderr.
// `what`: the parser's words for it. Returns the exit status.
int explain_usage(Command program, std::span<char* const> arguments, std::string what);

}  // namespace snug::cli
