// The commands of `snug`. Each returns the process's exit status and prints its own messages: results on
// stdout, everything else on stderr. Main thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "vmm/spec/flags.h"

namespace snug::cli {

struct RunArguments {
  std::optional<std::string> spec_path;
  FlagValues flags;
  bool stats = false;
  std::vector<std::string> command;  // behind "--": run in the guest by its initrd
};
int run(const RunArguments& arguments);

struct ValidateArguments {
  std::string spec_path;
  bool print = false;
};
int validate(const ValidateArguments& arguments);

int schema();
// Whether guests can run here, and what to do when not. 0: Linux guests run; 1: they do not.
int doctor();
int version();
// A bash completion script.
int completion();

}  // namespace snug::cli
