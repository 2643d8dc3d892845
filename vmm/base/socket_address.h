// Addresses of Unix sockets, which have room for 107 bytes where a path may have 4,095 (unix(7)). Any thread.
#pragma once

#include <sys/un.h>

#include <string>

#include "vmm/base/result.h"

namespace snug {

// The address of a path. Errors: the path is too long.
Result<sockaddr_un> socket_address(const std::string& path);

// The address of a file in a folder, however long the folder's path is: it is named by its descriptor, so the
// address leads there for this process and while that is open. Errors: the file's name is too long.
Result<sockaddr_un> socket_address(int folder, const std::string& file);

}  // namespace snug
