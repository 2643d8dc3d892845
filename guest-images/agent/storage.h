// The disk on which a guest's root is kept.
#pragma once

#include <string>

namespace snug::agent {

// Mounts the disk with that serial number, an ext4, as large as the disk is now. "": done, else why not.
std::string mount_storage(const std::string& serial, const std::string& place);

}  // namespace snug::agent
