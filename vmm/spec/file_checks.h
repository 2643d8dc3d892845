// Whether a file that a spec names can be used. Looks, never opens.
#pragma once

#include <optional>
#include <string>

#include "vmm/spec/key.h"

namespace snug {

// Nothing when fine, else what is wrong: "no such file: /x/y". Inputs: a readable regular file that is not
// empty, or a pipe. Shares: a readable folder or regular file. Outputs: something writable that is not a
// folder, or a new name in a writable folder.
std::optional<std::string> file_problem(const FileUse& file);

}  // namespace snug
