#include "vmm/base/file_status.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace snug {

bool file_status(int fd, struct stat& status) { return ::syscall(SYS_fstat, fd, &status) == 0; }

}  // namespace snug
