// The commands of the program, each with how it is described to the parser. A description costs more than
// parsing it, and starting a machine pays for each: so only the one that is asked for is described, or all
// where none is. Main thread.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "vmm/cli/command.h"

namespace snug::cli {

class CommandSet {
 public:
  // What the program does in the end; its return value is the exit status.
  using Action = std::function<int()>;
  using Describe = std::function<void(Command command)>;

  // `name`, `about`: of static lifetime. `describe` adds flags and arguments, and may add commands of its
  // own. `action`: what it does when it is given; null: its own commands say.
  void add(const char* name, const char* about, Describe describe, Action action);
  // Adds to `program` the command that `word`, the first of the command line, names, or all of them where it
  // names none: true and false. They set `chosen` when they are parsed. The command line must go before this.
  bool describe(Command program, std::string_view word, Action& chosen) const;

 private:
  struct Entry {
    const char* name;
    const char* about;
    Describe describe;
    Action action;
  };
  std::vector<Entry> commands_;
};

// A command of a command: snug image list.
Command add_subcommand(Command command, const char* name, const char* about, CommandSet::Action& chosen,
                       CommandSet::Action action);

}  // namespace snug::cli
