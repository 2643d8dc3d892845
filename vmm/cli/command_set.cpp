#include "vmm/cli/command_set.h"

#include <algorithm>
#include <utility>

namespace snug::cli {

void CommandSet::add(const char* name, const char* about, Describe describe, Action action) {
  commands_.push_back({name, about, std::move(describe), std::move(action)});
}

bool CommandSet::describe(Command program, std::string_view word, Action& chosen) const {
  const auto named = [word](const Entry& entry) { return word == entry.name; };
  const bool all = std::ranges::none_of(commands_, named);
  for (const Entry& entry : commands_) {
    if (!all && !named(entry)) continue;
    const Command added = program.subcommand(entry.name, entry.about);
    if (entry.action) added.callback([&chosen, &entry] { chosen = entry.action; });
    if (entry.describe) entry.describe(added);
  }
  return !all;
}

Command add_subcommand(Command command, const char* name, const char* about, CommandSet::Action& chosen,
                       CommandSet::Action action) {
  const Command added = command.subcommand(name, about);
  added.callback([&chosen, action = std::move(action)] { chosen = action; });
  return added;
}

}  // namespace snug::cli
