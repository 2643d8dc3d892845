#include "vmm/cli/command_set.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

namespace snug::cli {
namespace {

class CommandHelp : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App* app, std::string name) const override {
    std::string usage = CLI::Formatter::make_usage(app, std::move(name));
    usage.insert(usage.find_last_not_of('\n') + 1, " [-- COMMAND...]");
    return usage;
  }
};

}  // namespace

void CommandSet::add(const char* name, const char* about, Describe describe, Action action) {
  commands_.push_back({name, about, std::move(describe), std::move(action)});
}

bool CommandSet::describe(CLI::App& app, std::string_view word, Action& chosen) const {
  const auto named = [word](const Command& command) { return word == command.name; };
  const bool all = std::ranges::none_of(commands_, named);
  for (const Command& command : commands_) {
    if (!all && !named(command)) continue;
    CLI::App* added = app.add_subcommand(command.name, command.about);
    if (command.action) added->callback([&chosen, &command] { chosen = command.action; });
    if (command.describe) command.describe(*added);
  }
  return !all;
}

CLI::App* add_subcommand(CLI::App& command, const char* name, const char* about, CommandSet::Action& chosen,
                         CommandSet::Action action) {
  auto* added = command.add_subcommand(name, about);
  added->callback([&chosen, action = std::move(action)] { chosen = action; });
  return added;
}

void takes_command(CLI::App& command) { command.formatter(std::make_shared<CommandHelp>()); }

}  // namespace snug::cli
