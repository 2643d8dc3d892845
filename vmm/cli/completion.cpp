#include <fmt/format.h>

#include <string_view>
#include <vector>

#include "vmm/cli/commands.h"
#include "vmm/cli/life_commands.h"
#include "vmm/cli/put.h"
#include "vmm/spec/describe.h"

namespace snug::cli {

int completion() {
  std::vector<std::string_view> commands{"run",     "validate",   "schema", "doctor",
                                         "version", "completion", "ps",     "cp"};
  commands.insert(commands.end(), kCommandsOnMachines.begin(), kCommandsOnMachines.end());
  put("{}", bash_completion("snug", commands, kCommandsOnMachines));
  return 0;
}

}  // namespace snug::cli
