// Files and folders to and from a guest, through its agent. Blocking: for a process that does nothing else.
#pragma once

#include <functional>
#include <string>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/protocol/tree_entry.h"

namespace snug {

struct CopyOptions {
  bool owners = false;  // kept by number, as far as the side that writes may
  // Something of the tree did not arrive, or was left out; the rest goes on.
  std::function<void(const protocol::Problem&)> on_problem = [](const protocol::Problem&) {};
  // Asked when a system call was interrupted: true ends the copy from a guest, and takes an unfinished new
  // file away.
  std::function<bool()> is_stopped = [] { return false; };
};

// `connection`: a stream to the agent. As cp(1): into `destination` when that is a folder, else to be
// `destination`; of "FOLDER/.", what is in it. Modes, times, links, hard links, FIFOs and holes are kept.
// Errors: nothing arrived, or the copy ended in the middle.
Result<void> copy_to_guest(UniqueFd connection, const std::string& source, const std::string& destination,
                           const CopyOptions& options = {});
Result<void> copy_from_guest(UniqueFd connection, const std::string& source, const std::string& destination,
                             const CopyOptions& options = {});

}  // namespace snug
