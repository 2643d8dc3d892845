// The name servers of this host, and how a guest behind passt gets at them.
//
// passt tells the guest of those in /etc/resolv.conf, but for those on 127.0.0.0/8 and ::1 (a stub like
// systemd-resolved's, dnsmasq), which the guest cannot reach. Those it can forward, from an address that the
// guest is told of in their place.
//
// Thread: any.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace snug {

// What the guest asks in place of a name server on the host's loopback. Of the addresses that no network
// routes, and that no host but passt's answers for.
constexpr const char* kDnsForward4 = "169.254.1.1";
constexpr const char* kDnsForward6 = "fd73:6e75:67::53";

struct Resolvers {
  bool loopback4 = false, loopback6 = false;  // there are such on the loopback
  bool others = false;                        // and ones that the guest can reach by itself
  bool any_on_loopback() const { return loopback4 || loopback6; }
};

// What a resolv.conf has.
Resolvers resolvers_in(std::string_view resolv_conf);
// The name servers that it has, but for those on the loopback.
std::vector<std::string> reachable_resolvers(std::string_view resolv_conf);
// The same resolv.conf for a passt that forwards: one of the year 2023 takes the first name server for what
// it forwards to, and passes on only those that are not on the loopback.
std::string forwarding_resolv_conf(std::string_view resolv_conf);

}  // namespace snug
