// What a shell offers behind a half-written command line. Any thread.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/cli/command_tree.h"

namespace snug::cli {

struct Candidate {
  std::string word;  // the whole word, what stands there already included
  std::string about;
};

struct Completion {
  enum class Files { kNone, kAll, kSpecs };
  std::vector<Candidate> candidates;
  Files files = Files::kNone;  // files are fine too
  std::string before;          // what stands before the file's name in the word: "--kernel="
};

// What has names here, asked for when they are needed.
struct KnownNames {
  std::function<std::vector<std::string>()> machines;
  std::function<std::vector<std::string>()> snapshots;
};

// `words`: what stands behind the program's name, the last being the one that is written, which may be empty.
Completion complete(std::span<const std::string> words, std::span<const CommandInfo> commands,
                    const KnownNames& known);

// As the scripts read it: a candidate a line, a tab before what is said of it; then ":files BEFORE" or
// ":specs BEFORE" where files are fine.
std::string completion_lines(const Completion& completion);

// The script that asks for that; "" when there is none for that shell.
std::string_view completion_script(std::string_view shell);

}  // namespace snug::cli
