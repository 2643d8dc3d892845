// The commands and flags of the program as a list, for what describes them: manual pages and completion.
// Main thread.
#pragma once

#include <string>
#include <vector>

#include "vmm/cli/command.h"
#include "vmm/spec/key.h"

namespace snug::cli {

struct FlagInfo {
  std::vector<std::string> names;  // "-m", "--memory"
  std::string placeholder;         // of its value; "" when it takes none
  std::string help;                // a sentence or two
  std::string group;               // of the help
  const Key* key = nullptr;        // of the spec, which has it as well; null: the command line alone has it
};

struct ArgumentInfo {
  std::string name;  // "NAME"
  std::string help;
  bool required = false;
  bool repeats = false;
};

struct CommandInfo {
  std::string name;
  std::string about;
  std::string footer;
  std::vector<ArgumentInfo> arguments;
  std::vector<FlagInfo> flags;
  bool takes_command = false;  // behind "--"
};

// Of a program whose commands have all of their flags. Hidden commands are left out.
std::vector<CommandInfo> command_tree(Command program);

// The keys of the spec that have a flag, maps opened.
std::vector<const Key*> keys_with_flags();

}  // namespace snug::cli
