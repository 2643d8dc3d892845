// One session: a client, its greeting and its requests. Runs in a process of its own.
#pragma once

#include "guest-images/agent/connection.h"
#include "vmm/protocol/messages.h"

namespace snug::agent {

// What a session may do to the machine as a whole. Injected, so that tests leave the host alone.
struct Powers {
  bool (*set_time)(uint64_t nanoseconds) = nullptr;               // false: errno says why
  void (*power)(protocol::PowerAction) = nullptr;                 // the client has been answered
  std::string (*mount)(const protocol::MountRequest&) = nullptr;  // why not, for a person; "": done
  std::string (*go_on)(const protocol::GoOn&) = nullptr;          // likewise
  // Likewise. Null: the guest has begun.
  std::string (*begin)(const protocol::Begin&) = nullptr;
  // Waits for the next connection of the host's to kKeptPort. None: there can be none. Null: likewise.
  Fd (*accept_next)() = nullptr;
  std::string (*readdress)(const std::vector<protocol::AddressChange>&) = nullptr;  // as mount
};

// Returns when the session is over. True: the guest has begun by it; the client has been answered.
bool serve(Fd connection, const Powers& powers);

}  // namespace snug::agent
