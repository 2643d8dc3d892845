#include "vmm/cli/usage.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <string_view>
#include <vector>

#include "vmm/cli/put.h"
#include "vmm/run/runner.h"
#include "vmm/spec/text.h"

namespace snug::cli {
namespace {

std::vector<std::string> command_names(Command command) {
  std::vector<std::string> names;
  for (const Command one : command.subcommands()) names.push_back(one.name());
  return names;
}

std::vector<std::string> flag_names(Command command) {
  std::vector<std::string> names;
  for (const OptionFacts& option : command.options())
    for (const std::string& name : option.names)
      if (name.starts_with("--")) names.push_back(name);
  return names;
}

// The first flag among the arguments that the command does not know; "" when there is none.
std::string unknown_flag(const std::vector<std::string>& known, std::span<char* const> arguments) {
  for (const std::string_view argument : arguments) {
    const std::string name(argument.substr(0, argument.find('=')));
    if (name.size() > 2 && name.starts_with("--") &&
        std::find(known.begin(), known.end(), name) == known.end())
      return name;
  }
  return {};
}

}  // namespace

int explain_usage(Command program, std::span<char* const> arguments, std::string what) {
  // The innermost that was understood, with the word behind it: of `snug image lst` that is `image`.
  Command command = program;
  size_t next = 1;
  std::string words = "snug ";
  while (const auto parsed = command.parsed_subcommand()) {
    command = *parsed;
    words += command.name() + " ";
    next = static_cast<size_t>(std::find(arguments.begin(), arguments.end(), command.name()) -
                               arguments.begin()) +
           1;
  }
  if (const auto names = command_names(command); !names.empty()) {
    const std::string_view word = arguments.size() > next ? arguments[next] : "";
    if (word.empty()) {
      what = "a command is missing";
    } else if (!word.starts_with('-')) {
      what = fmt::format("unknown command {}{}", in_quotes(word), did_you_mean(word, names));
    } else {
      what = fmt::format("unknown flag {}{}", in_quotes(word), did_you_mean(word, flag_names(command)));
    }
  } else {
    const auto flags = flag_names(command);
    if (const auto flag = unknown_flag(flags, arguments); !flag.empty())
      what = fmt::format("unknown flag {}{}", in_quotes(flag), did_you_mean(flag, flags));
  }
  put(stderr, "snug: {}\n", what);
  put(stderr, "snug: try: {}--help\n", words);
  return kStatusFailure;
}

}  // namespace snug::cli
