// Folders of an image that have a file system of their own (its VOLUMEs): in memory, or kept on the disk of
// the guest's storage. Each begins with what the image has there.
#pragma once

#include <string>
#include <vector>

#include "guest-images/agent/connection.h"

namespace snug::agent {

// A folder for volumes in `storage`, to be kept open while the root is entered. None: it cannot be made.
Fd open_volumes(const std::string& storage);

// In the guest's root, with /proc and /run. `kept`: as open_volumes() has it; none: in memory. What cannot be
// done is said on the kernel's log; the folder is then what the image has.
void mount_volumes(std::vector<std::string> folders, const Fd& kept);

// The name of a volume's folder among those that are kept: "var%2Flib%2Fdata".
std::string volume_name(const std::string& folder);

// What is in `from`, with owners, into the folder `to`. "": done, else what is missing.
std::string copy_folder(const std::string& from, const std::string& to);

}  // namespace snug::agent
