// The way in of the process that serves shares: like that of the machine's process (steps.h), but with some
// folders in its root, and with the rights over files that their user has.
//
// Thread: the only one of its process; threads made later have all of it from the start.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "vmm/base/unique_fd.h"
#include "vmm/jail/steps.h"

namespace snug::jail {

// What the process is to reach: a folder with all that is in it, or a file.
struct SharedFolder {
  std::string path;       // absolute
  UniqueFd opened;        // O_PATH, as it was found when the machine was set up
  bool readonly = false;  // in truth: by the kernel, wherever it can
  bool submounts =
      false;  // with what is mounted below it, which else stays away where the kernel allows that
};

struct ShareEntry {
  Entry steps;
  std::vector<UniqueFd> roots;  // O_PATH, one for each folder
  UniqueFd empty;               // O_PATH: an empty folder that nobody can change; or none
  // O_PATH: this process's /proc/self/fd, from which no step up leads to the rest of /proc; or none, where
  // there is no root of its own.
  UniqueFd own_files;
};

// In the child of split(kNamespacesAsSelf). As take_steps(), with these differences: the child stays who it
// is, an ordinary user with no other user in its namespace; the root holds the folders, where they lie under
// numbers, without devices, programs and set-user-id bits; of its capabilities it keeps those over files.
// Errors: a folder that is not there any more.
Result<ShareEntry> take_share_steps(const Split& split, const Limits& limits,
                                    std::span<SharedFolder> folders);

}  // namespace snug::jail
