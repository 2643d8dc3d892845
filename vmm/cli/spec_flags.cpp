#include "vmm/cli/spec_flags.h"

#include <string>
#include <utility>

namespace snug::cli {
namespace {

Option add_flag(Command command, const KeyFlag& flag, FlagValues& values) {
  std::string names(flag.key->flags);
  if (flag.stands_alone())
    return command.flag_to(
        std::move(names),
        [&values, path = flag.path](bool is_set) { values.by_key[path] = {is_set ? "true" : "false"}; },
        flag.help);
  // One value behind each; "--kernel a b" must leave b alone.
  return command
      .option_to(
          std::move(names),
          [&values, path = flag.path](const std::vector<std::string>& given) { values.by_key[path] = given; },
          flag.help)
      .placeholder(std::string(flag.key->placeholder))
      .one_each();
}

}  // namespace

void add_flags(Command command, const std::vector<KeyFlag>& flags, FlagValues& values) {
  for (const KeyFlag& flag : flags) add_flag(command, flag, values).group(std::string(flag.key->group));
}

}  // namespace snug::cli
