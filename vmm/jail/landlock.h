// Landlock: what a process may no longer reach by name, whatever its user may (landlock(7)).
#pragma once

#include "vmm/base/result.h"

namespace snug::jail {

// The version that this kernel has, or -1 with errno: ENOSYS where it was built without, EOPNOTSUPP where it
// was not turned on.
int landlock_version();

// The calling thread, and those that it makes later: no file by name, no TCP port (since version 4), no ioctl
// of devices (5), no abstract socket of and no signal to processes outside (6). What is open already stays as
// usable as it was. Needs no_new_privs. 0 or an errno.
int forbid_names(int version);

}  // namespace snug::jail
