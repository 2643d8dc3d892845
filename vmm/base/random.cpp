#include "vmm/base/random.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace snug {

ssize_t get_random(std::span<std::byte> out) { return ::syscall(SYS_getrandom, out.data(), out.size(), 0); }

}  // namespace snug
