// The guest's network interface.
#pragma once

#include <string>
#include <vector>

namespace snug::agent {

using NameServers = std::vector<std::string>;  // addresses

// Raises it and gives it the address, routes and name servers that a DHCP server offers within some seconds.
// IPv6 is the kernel's own affair. False: there is none, or it answers nothing of use.
bool configure_by_dhcp(const char* name, NameServers& servers);

}  // namespace snug::agent
