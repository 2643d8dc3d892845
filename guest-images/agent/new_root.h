// The guest's root, which is a folder of the host or the image of a file system.
#pragma once

#include <string>
#include <vector>

#include "guest-images/agent/interface.h"

namespace snug::agent {

struct RootPlan {
  // The tag of a shared folder, or a device below /dev with an EROFS.
  std::string where;
  // The serial number of the disk that takes what is written; "": the guest's memory does.
  std::string storage;
  std::vector<std::string> volumes;  // see volumes.h
  NameServers servers;
};

// What the plan names, read-only, below a layer that takes what is written, with /proc, /sys, /dev, /run and
// /tmp of the guest's own; this process is in it then, and its initrd is gone. "": done, else why not.
std::string enter_root(const RootPlan& plan);

// Into its /etc/resolv.conf, which stays as it is without any. `root`: its path; "": that of this process.
void write_name_servers(const std::string& root, const NameServers& servers);

}  // namespace snug::agent
