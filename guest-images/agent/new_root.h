// The guest's root, which is a folder of the host or the image of a file system.
#pragma once

#include <string>

#include "guest-images/agent/interface.h"

namespace snug::agent {

// What `where` names, the tag of a shared folder or a device below /dev with an EROFS, read-only, below a
// layer in the guest's memory, with /proc, /sys, /dev, /run and /tmp of the guest's own; this process is in
// it then, and its initrd is gone. "": done, else why not.
std::string enter_root(const std::string& where, const NameServers& servers);

}  // namespace snug::agent
