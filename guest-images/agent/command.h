// Runs one command for the client: its input, outputs, signals and end over the connection.
#pragma once

#include "guest-images/agent/connection.h"
#include "guest-images/agent/spawn.h"

namespace snug::agent {

// Returns when the command has ended and that has been said, or when the client is gone: then the command's
// process group has got a hang-up.
void run_command(Connection& connection, const protocol::ExecRequest& request);

}  // namespace snug::agent
