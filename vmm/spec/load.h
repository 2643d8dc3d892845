// YAML and flags to a checked Spec. Every problem is reported at once, ordered by position, flags last. No
// side effects: files are looked at (stat, access), only the spec itself is read. Any thread; never throws.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/spec/flags.h"
#include "vmm/spec/problem.h"
#include "vmm/spec/spec.h"

namespace snug {

// Larger spec files are refused unread.
constexpr size_t kMaxSpecBytes = size_t{1} << 20;
// Further problems are counted in a last one.
constexpr size_t kMaxProblems = 100;

// `spec` is only meaningful when `problems` is empty.
struct ParseOutcome {
  Spec spec;
  bool named = false;  // the name comes from the file, a flag or the file's own name
  std::vector<Problem> problems;
};

// Parses the text of a spec. `file_name` is used in messages and, without its folder and suffix, as the
// default name; `base_dir` is what relative paths are relative to (empty: they stay as they are). Looks at no
// file.
ParseOutcome parse_spec_text(std::string_view yaml, const std::string& file_name,
                             const std::string& base_dir);

// Reads the file ("-": standard input; nothing: defaults), applies the flags over it, and checks that every
// file named exists, is of a usable kind and may be read (or, for outputs, written). A spec without a kernel
// is fine: what to boot then is the caller's choice. Relative paths of the file's keys: to the file's folder
// (for standard input and pipes, to the working folder); of flags: to the working folder.
ParseOutcome load_spec(const std::optional<std::string>& spec_path, const FlagValues& flags);

// A machine name made of a file's: folder and suffix dropped, characters a name may not have replaced by '-'.
// "snug" when nothing is left.
std::string default_name(std::string_view file_name);

}  // namespace snug
