// Mounts shares of the host (virtio-fs) in the guest.
#pragma once

#include <string>
#include <string_view>

#include "vmm/protocol/messages.h"

namespace snug::agent {

// "": it is mounted, now or before. Else why not, for a person. Takes root.
std::string mount_share(const protocol::MountRequest& request);

// As mkdir -p. "": they are there; else which one cannot be made, and why.
std::string make_folders(const std::string& path);

// Whether what is seen at `path` is the share of a request, by the text of /proc/self/mountinfo (proc(5)).
// `path`: without links.
bool is_mounted(std::string_view mountinfo, const protocol::MountRequest& request, std::string_view path);

}  // namespace snug::agent
