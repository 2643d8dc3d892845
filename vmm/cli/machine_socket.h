// Reaching the sockets of a guest that runs. Main thread.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug::cli {

// How long an agent that does not answer yet is waited for.
struct AgentPatience {
  // From now on, whatever the machine does; zero: not at all. Nothing: as long as the guest is on its way,
  // which the machine knows: its agent has not called yet, and its boot_timeout (else 2 minutes) is not over.
  // Where the machine cannot be asked, 10 s; an agent that has called and refuses, as when the guest shuts
  // down, 30 s.
  std::optional<std::chrono::milliseconds> limit;
};

// "5s", "none" for no limit. Errors: it is neither.
Result<AgentPatience> parse_patience(const std::string& text);

// What an agent that was waited for in vain leaves to say.
struct NoAgent {
  Error error;
  std::optional<int> exit_status;  // of the machine, when it has ended meanwhile and said so
};

// A stream to the agent in a guest. `machine`: its name, or the path of its vsock socket when there is a
// slash in it. What takes long is said on stderr. Errors: no such machine; it has no socket device; it is
// paused, or has ended; nobody answers.
tl::expected<UniqueFd, NoAgent> reach_agent(const std::string& machine, const AgentPatience& patience);
Result<UniqueFd> connect_to_agent(const std::string& machine, const AgentPatience& patience);

}  // namespace snug::cli
