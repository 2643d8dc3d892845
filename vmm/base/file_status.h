// fstat(2) as such. The C library's may be another call, which takes paths: threads that are confined
// (vmm/jail) do without it.
//
// Thread: any.
#pragma once

#include <sys/stat.h>

namespace snug {

// False with errno.
bool file_status(int fd, struct stat& status);

}  // namespace snug
