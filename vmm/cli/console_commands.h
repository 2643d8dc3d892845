// The console of a machine in the background, from another terminal: `snug logs` and `snug attach`.
// Main thread; both return an exit status.
#pragma once

#include <string>

namespace snug::cli {

enum class LogKind { kPrinted, kConsole };  // a command's output, where there is one; the console in any case
enum class LogOf { kThisRun, kRunBefore };
int show_log(const std::string& name, bool follow, LogKind kind, LogOf which);
int attach(const std::string& name);

}  // namespace snug::cli
