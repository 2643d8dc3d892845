// A guest that goes on in another network: its addresses there.
#pragma once

#include <string>

namespace snug::agent {

// Returns at once. The cable of `name` is out, or is about to be, and leads into another network when it is
// plugged in: then the addresses of IPv6 are made anew, and the one of IPv4 is asked for, where that is not
// another program's work (systemd's, say, which sees the cable as well).
void renew_when_plugged_in(const std::string& name);

}  // namespace snug::agent
