// Starting a command in the guest.
#pragma once

#include <sys/types.h>

#include <string>

#include "guest-images/agent/connection.h"
#include "vmm/protocol/messages.h"

namespace snug::agent {

// A command that runs, and our ends of what it reads and writes. With a terminal, input and output are the
// same and there are no errors.
struct Child {
  pid_t pid = -1;  // leads a session and a process group of its own
  Fd input;
  Fd output;
  Fd errors;
};

// Starts it. False: `error` says why not.
bool spawn(const protocol::ExecRequest& request, Child& child, protocol::ErrorMessage& error);

}  // namespace snug::agent
