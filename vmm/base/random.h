// getrandom(2) as such. The C library's may keep a state for each thread, and looks at the host's processors
// to make it: threads that are confined (vmm/jail) do without it.
//
// Thread: any.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <span>

namespace snug {

// How many bytes it has filled, or -1 with errno. Waits only while the host itself boots.
ssize_t get_random(std::span<std::byte> out);

}  // namespace snug
