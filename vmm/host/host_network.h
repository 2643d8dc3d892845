// What passt finds on this host, and what it has to be told because it is not there.
//
// passt gives the guest the addresses of the host's interface with the default route. A host that has none
// (offline, a namespace for tests) is none to it: it ends, or leaves IPv6 out. By hand it can be given
// addresses for its guest all the same; what it sends then goes where the host's routes lead at that time, so
// that the guest is online when its host is.
//
// Thread: any.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "vmm/spec/spec.h"

namespace snug {

// The interface with the default route of one IP version.
struct Uplink {
  std::string interface;    // "": there is none
  bool usable = false;      // passt can take all it needs from it
  bool link_local = false;  // it has a link-local IPv6 address
};

struct HostNetwork {
  Uplink v4, v6;
  std::string link_local;  // an interface with a link-local IPv6 address; "": there is none
};

HostNetwork look_at_host_network();

// Takes out of `ports` those on IPv6 addresses where passt has no way to IPv6: without a link-local address
// on any interface (only lo, or IPv6 switched off) it publishes none, and would end for it. Returns them.
std::vector<PortForward> take_unpublishable(std::vector<PortForward>& ports, const HostNetwork& host);

// passt's options about addresses for a guest with these ports. `v6`: it wants IPv6 for another reason.
// Empty where passt finds all it needs by itself.
std::vector<std::string> address_options(const HostNetwork& host, const std::vector<PortForward>& ports,
                                         bool v6);

// The interfaces with a default route through a gateway, and with one without, as /proc/net/route and
// /proc/net/ipv6_route have them. The first of them, which is passt's.
struct DefaultRoute {
  std::string interface;
  bool has_gateway = false;
};
DefaultRoute default_route4(std::string_view table);
DefaultRoute default_route6(std::string_view table);

}  // namespace snug
