// The guest's root, which is a folder of the host.
#pragma once

#include <string>

#include "guest-images/agent/interface.h"

namespace snug::agent {

// The shared folder `tag`, read-only, below a layer in the guest's memory, with /proc, /sys, /dev, /run and
// /tmp of the guest's own; this process is in it then, and its initrd is gone. "": done, else why not.
std::string enter_root(const std::string& tag, const NameServers& servers);

}  // namespace snug::agent
