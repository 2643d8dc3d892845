#include <string>
#include <vector>

#include "vmm/cli/commands.h"
#include "vmm/cli/complete.h"
#include "vmm/cli/put.h"
#include "vmm/cli/snapshot_store.h"
#include "vmm/control/vm_directory.h"

namespace snug::cli {
namespace {

std::vector<std::string> machine_names() {
  std::vector<std::string> names;
  const auto machines = list_machines();
  if (!machines) return names;
  for (const FoundVm& vm : *machines) names.push_back(vm.name);
  return names;
}

std::vector<std::string> snapshot_names() {
  std::vector<std::string> names;
  const auto snapshots = stored_snapshots();
  if (!snapshots) return names;
  for (const StoredSnapshot& snapshot : *snapshots) names.push_back(snapshot.name);
  return names;
}

}  // namespace

int completion(std::string_view shell) {
  put("{}", completion_script(shell));
  return 0;
}

int complete_words(std::span<const std::string> words, std::span<const CommandInfo> commands) {
  put("{}", completion_lines(complete(words, commands, {machine_names, snapshot_names})));
  return 0;
}

}  // namespace snug::cli
