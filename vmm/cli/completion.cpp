#include <fmt/format.h>

#include <array>
#include <string_view>

#include "vmm/cli/commands.h"
#include "vmm/cli/put.h"
#include "vmm/spec/describe.h"

namespace snug::cli {

int completion() {
  constexpr std::array<std::string_view, 6> kCommands{"run",    "validate", "schema",
                                                      "doctor", "version",  "completion"};
  put("{}", bash_completion("snug", kCommands));
  return 0;
}

}  // namespace snug::cli
