#include "vmm/cli/command_tree.h"

#include <algorithm>
#include <utility>

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

FlagInfo flag_info(OptionFacts option, const std::vector<const Key*>& keys) {
  FlagInfo info;
  for (const auto& name : option.names) {
    if (!name.starts_with("--")) continue;
    if (const Key* key = key_of(name, keys)) info.key = key;
  }
  const bool has_value = info.key != nullptr && !(info.key->value && info.key->value->bare_flag);
  info.names = std::move(option.names);
  info.placeholder = has_value ? std::string(info.key->placeholder) : std::move(option.placeholder);
  info.help = std::move(option.help);
  info.group = std::move(option.group);
  return info;
}

CommandInfo command_info(Command command, const std::vector<const Key*>& keys) {
  CommandInfo info{.name = command.name(), .about = command.about(), .footer = command.footer()};
  for (OptionFacts& option : command.options()) {
    if (option.group.empty()) continue;
    if (!option.is_argument)
      info.flags.push_back(flag_info(std::move(option), keys));
    else
      info.arguments.push_back({.name = option.names.front(),
                                .help = std::move(option.help),
                                .required = option.required,
                                .repeats = option.repeats});
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

std::vector<CommandInfo> command_tree(Command program) {
  const auto keys = keys_with_flags();
  const std::vector<const Key*> none;
  std::vector<CommandInfo> commands;
  for (const Command command : program.subcommands())
    if (!command.is_hidden())
      commands.push_back(command_info(command, command.name() == "run" ? keys : none));
  return commands;
}

}  // namespace snug::cli
