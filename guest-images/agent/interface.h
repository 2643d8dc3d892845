// The guest's network interfaces.
#pragma once

#include <string>
#include <vector>

#include "guest-images/agent/dhcp.h"

namespace snug::agent {

using NameServers = std::vector<std::string>;  // addresses

// Raises it and gives it the address, routes and name servers that a DHCP server offers within some seconds.
// IPv6 is the kernel's own affair. False: there is none, or it answers nothing of use.
bool configure_by_dhcp(const char* name, NameServers& servers);

// Of all there are.
std::vector<std::string> interface_names();
// Zeros: there is no such interface.
HardwareAddress hardware_address(const std::string& name);
// Announces it (gratuitous ARP, unsolicited neighbour advertisement) when it is up. False, with errno: there
// is none, or it takes no other address, or not while it is up.
bool set_hardware_address(const std::string& name, const HardwareAddress& address);
// Whether somebody has raised it.
bool is_up(const std::string& name);

}  // namespace snug::agent
