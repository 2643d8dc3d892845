// Files that are read at each boot of a guest.
//
// Thread: any.
#pragma once

#include <string>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug {

// Opens it for reading. What can be read once only (a pipe, `<(...)` in a shell) is read to its end and kept
// in memory: a guest that resets is loaded once more. Errors: what open and read say; a stream of more than 4
// GiB.
Result<UniqueFd> open_input(const std::string& path);

}  // namespace snug
