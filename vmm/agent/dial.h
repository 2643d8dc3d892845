// Asking a machine's vsock socket for a port of its guest: "CONNECT PORT\n", answered by "OK HOSTPORT\n" or
// by its end. Blocking: for commands, which have nothing to do before.
#pragma once

#include <chrono>
#include <cstdint>

#include "vmm/base/result.h"

namespace snug {

// `socket`: connected, blocking; once the guest has taken it, it is a stream to the port. False: the guest
// refuses, or says nothing for longer than the machine waits (10 s). Errors: an answer that cannot be; none
// within `patience`.
Result<bool> dial(int socket, uint32_t port, std::chrono::milliseconds patience);

}  // namespace snug
