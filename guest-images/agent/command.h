// Runs one command for the client: its input, outputs, signals and end over the connection.
#pragma once

#include <functional>
#include <memory>

#include "guest-images/agent/connection.h"
#include "guest-images/agent/spawn.h"

namespace snug::agent {

// The next client, which has asked to take the command up; null: there will be none.
using NextClient = std::function<std::unique_ptr<Connection>()>;

// Returns when the command has ended and that has been said, or when the client is gone: then the command's
// process group has got a hang-up, unless it is kept for the next client.
void run_command(Connection& connection, const protocol::ExecRequest& request, const NextClient& next_client);

}  // namespace snug::agent
