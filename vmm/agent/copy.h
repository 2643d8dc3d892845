// Files and folders to and from a guest, through its agent. Blocking: for a process that does nothing else.
#pragma once

#include <string>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug {

// `connection`: a stream to the agent. Modes, times and links are kept, owners are not; what is
// neither a file nor a folder nor a link is left out. As cp(1): into `destination` when that is a folder.
// Returns how many were left out.
Result<size_t> copy_to_guest(UniqueFd connection, const std::string& source, const std::string& destination);
Result<void> copy_from_guest(UniqueFd connection, const std::string& source, const std::string& destination);

}  // namespace snug
