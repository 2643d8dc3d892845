// Landlock: what a process may no longer reach by name, whatever its user may (landlock(7)).
#pragma once

#include <span>

#include "vmm/base/result.h"

namespace snug::jail {

// The version that this kernel has, or -1 with errno: ENOSYS where it was built without, EOPNOTSUPP where it
// was not turned on.
int landlock_version();

// The calling thread, and those that it makes later: no file by name, no TCP port (since version 4), no ioctl
// of devices (5), no abstract socket of and no signal to processes outside (6). What is open already stays as
// usable as it was. Needs no_new_privs. 0 or an errno.
int forbid_names(int version);

// A folder, or file, that stays within reach.
struct ReachableFolder {
  int folder = -1;  // O_PATH
  bool is_file = false;
  bool readonly = false;
};
// As forbid_names(), but for what lies in these: everything there but to execute and to make devices. Needs
// version 2: the first one forbids to move files from one folder to another.
int forbid_names_but(int version, std::span<const ReachableFolder> folders);

}  // namespace snug::jail
