// A guest that goes on elsewhere, after a snapshot: what must not be the same in all that begin there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "vmm/protocol/messages.h"

namespace snug::agent {

// Since 1970. False: errno says why.
bool set_clock(uint64_t nanoseconds);
// Stirs the kernel's random numbers, sets the clock and the host's name, in this order. Why not, for a
// person;
// "": done. What is not this process's to do is left.
std::string go_on(const protocol::GoOn& request);

// The interfaces that have these addresses get others. As go_on().
std::string readdress(const std::vector<protocol::AddressChange>& changes);

}  // namespace snug::agent
