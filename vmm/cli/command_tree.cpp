#include "vmm/cli/command_tree.h"

#include <CLI/CLI.hpp>
#include <algorithm>

namespace snug::cli {
namespace {

void collect(const KeyList& keys, std::vector<const Key*>& out) {
  for (const auto& key : keys) {
    if (!key.flags.empty()) out.push_back(&key);
    if (key.nested && !key.nested->is_list) collect(key.nested->keys, out);
  }
}

const Key* key_of(const std::string& flag, const std::vector<const Key*>& keys) {
  const auto found =
      std::find_if(keys.begin(), keys.end(), [&](const Key* key) { return long_flag(*key) == flag; });
  return found == keys.end() ? nullptr : *found;
}

FlagInfo flag_info(const CLI::Option& option, const std::vector<const Key*>& keys) {
  FlagInfo info;
  for (const auto& name : option.get_snames()) info.names.push_back("-" + name);
  for (const auto& name : option.get_lnames()) {
    info.names.push_back("--" + name);
    if (const Key* key = key_of(info.names.back(), keys)) info.key = key;
  }
  if (option.get_items_expected_max() > 0) info.placeholder = option.get_type_name();
  // Of a check on the value, which the parser appends.
  info.placeholder.resize(std::min(info.placeholder.size(), info.placeholder.find(':')));
  if (info.key != nullptr && !(info.key->value && info.key->value->bare_flag))
    info.placeholder = info.key->placeholder;
  info.help = option.get_description();
  info.group = option.get_group();
  return info;
}

CommandInfo command_info(const CLI::App& command, const std::vector<const Key*>& keys) {
  CommandInfo info{
      .name = command.get_name(), .about = command.get_description(), .footer = command.get_footer()};
  for (const CLI::Option* option : command.get_options([](const CLI::Option*) { return true; })) {
    if (option->get_group().empty()) continue;
    if (option->nonpositional())
      info.flags.push_back(flag_info(*option, keys));
    else
      info.arguments.push_back({.name = option->get_name(true),
                                .help = option->get_description(),
                                .required = option->get_required(),
                                .repeats = option->get_items_expected_max() > 1});
  }
  info.takes_command = info.name == "run" || info.name == "exec" || info.name == "send";
  return info;
}

}  // namespace

std::vector<const Key*> keys_with_flags() {
  std::vector<const Key*> keys;
  collect(spec_keys(), keys);
  return keys;
}

std::vector<CommandInfo> command_tree(const CLI::App& app) {
  const auto keys = keys_with_flags();
  const std::vector<const Key*> none;
  std::vector<CommandInfo> commands;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    if (!command->get_group().empty())
      commands.push_back(command_info(*command, command->get_name() == "run" ? keys : none));
  return commands;
}

}  // namespace snug::cli
