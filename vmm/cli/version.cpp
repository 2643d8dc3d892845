#include <string_view>

#include "vmm/cli/commands.h"
#include "vmm/cli/put.h"
#include "vmm/cli/source_commit.h"  // made by the build

namespace snug::cli {

std::string version_text() {
  std::string text = "snug " SNUG_VERSION;
  constexpr std::string_view kCommit = SNUG_COMMIT;
  if (!kCommit.empty()) text.append(" (commit ").append(kCommit).append(")");
  return text;
}

int version() {
  put("{}\n", version_text());
  return 0;
}

}  // namespace snug::cli
