// Bytes through a connected socket, as send(2) and recv(2) have it, by the two calls that also take
// descriptors along: a process that is confined (vmm/jail) is left with fewer calls that way.
//
// Thread: any.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <cstddef>

namespace snug {

// How many bytes the socket has taken; -1 and errno. A peer that has gone is EPIPE, not a signal.
ssize_t send_some(int fd, const void* bytes, size_t size, int flags = 0);
// How many bytes have come; 0 at the end; -1 and errno.
ssize_t receive_some(int fd, void* bytes, size_t size, int flags = 0);

}  // namespace snug
