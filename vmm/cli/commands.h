// The commands of `snug`. Each returns the process's exit status and prints its own messages: results on
// stdout, everything else on stderr. Main thread.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/cli/command_tree.h"
#include "vmm/spec/flags.h"

namespace snug::cli {

struct RunArguments {
  std::optional<std::string> spec_path;
  FlagValues flags;
  bool stats = false;
  bool detach = false;               // the machine runs on in the background
  bool wait = false;                 // then: until the agent in the guest answers
  bool remove = false;               // nothing of it is kept when it ends; always so in the foreground
  bool quiet = false;                // not shown: how far an image is that is brought
  bool interactive = false;          // the command in the guest gets our stdin
  bool tty = false;                  // it runs on a terminal
  std::string junit;                 // where results are written as JUnit XML; "": nowhere
  std::vector<std::string> command;  // behind "--": run in the guest by its agent
  std::string snapshot;              // the folder of one, where the machine begins; "": it boots
  std::string snapshot_of;           // the machine that it was made of
  std::string commands;              // of that snapshot: what goes on in it (vmm/run/saved_commands.h)
};
int run(const RunArguments& arguments);

// A command in a guest that runs already.
struct ExecArguments {
  std::string machine;
  std::vector<std::string> variables;
  std::string folder;
  std::string user;
  bool interactive = false;
  bool tty = false;
  std::string wait;  // how long, for an agent that does not answer yet; "": as long as the guest boots
  std::vector<std::string> command;
};
int exec(const ExecArguments& arguments);
// The user's login shell, on this terminal.
int shell(ExecArguments arguments);

// One of the two is MACHINE:PATH.
struct CopyArguments {
  std::string from;
  std::string to;
  bool owners = false;
  std::string wait;  // as of ExecArguments
};
// 1: some of it could not be copied, and was named; the rest was.
int copy(const CopyArguments& arguments);

struct ValidateArguments {
  std::string spec_path;
  bool print = false;
};
int validate(const ValidateArguments& arguments);

int schema();
// Whether guests can run here, and what to do when not. 0: Linux guests run; 1: they do not.
int doctor();
int version();
// "snug 0.1.0 (commit 0123456789ab)"; without the commit where the source is in no repository.
std::string version_text();
// The completion script of a shell.
int completion(std::string_view shell);
// What the scripts ask for: see complete.h.
int complete_words(std::span<const std::string> words, std::span<const CommandInfo> commands);
// A manual page, for man(1).
int manual(std::string_view page, std::span<const CommandInfo> commands);

}  // namespace snug::cli
