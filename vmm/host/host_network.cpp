#include "vmm/host/host_network.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>

namespace snug {
namespace {

// What the guest has where the host has nothing to take it from: addresses for private use, and "snug" in
// the one of IPv6.
constexpr const char* kAddress4 = "10.0.2.15";
constexpr const char* kGateway4 = "10.0.2.2";
constexpr const char* kPrefix4 = "24";
constexpr const char* kAddress6 = "fd73:6e75:67::15";
constexpr const char* kGateway6 = "fe80::2";
constexpr const char* kMac = "9a:55:9a:55:9a:55";  // passt's own choice, where it makes one

// What an interface has that passt looks for.
struct Addresses {
  bool v4 = false, v6 = false, link_local = false, mac = false;
};

std::string file_text(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

void note(Addresses& on, const sockaddr& address) {
  if (address.sa_family == AF_INET) on.v4 = true;
  if (address.sa_family == AF_INET6) {
    sockaddr_in6 v6{};
    std::memcpy(&v6, &address, sizeof v6);
    (IN6_IS_ADDR_LINKLOCAL(&v6.sin6_addr) ? on.link_local : on.v6) = true;
  }
  if (address.sa_family == AF_PACKET) {
    sockaddr_ll link{};
    std::memcpy(&link, &address, sizeof link);
    on.mac = std::any_of(std::begin(link.sll_addr), std::end(link.sll_addr), [](auto b) { return b != 0; });
  }
}

}  // namespace

DefaultRoute default_route4(std::string_view table) {
  std::istringstream lines{std::string(table)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string interface, target, gateway, flags, references, use, metric, mask;
    words >> interface >> target >> gateway >> flags >> references >> use >> metric >> mask;
    if (target != "00000000" || mask != "00000000") continue;
    const auto bits = std::strtoul(flags.c_str(), nullptr, 16);
    if ((bits & RTF_UP) == 0 || (bits & RTF_REJECT) != 0) continue;
    return {interface, (bits & RTF_GATEWAY) != 0};
  }
  return {};
}

DefaultRoute default_route6(std::string_view table) {
  std::istringstream lines{std::string(table)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string target, length, source, source_length, gateway, metric, references, use, flags, interface;
    words >> target >> length >> source >> source_length >> gateway >> metric >> references >> use >> flags >>
        interface;
    if (length != "00" || target.find_first_not_of('0') != std::string::npos) continue;
    const auto bits = std::strtoul(flags.c_str(), nullptr, 16);
    if ((bits & RTF_UP) == 0 || (bits & RTF_REJECT) != 0 || interface == "lo") continue;
    return {interface, (bits & RTF_GATEWAY) != 0};
  }
  return {};
}

HostNetwork look_at_host_network() {
  const DefaultRoute v4 = default_route4(file_text("/proc/net/route"));
  const DefaultRoute v6 = default_route6(file_text("/proc/net/ipv6_route"));
  HostNetwork host;
  host.v4.interface = v4.interface;
  host.v6.interface = v6.interface;
  ifaddrs* first = nullptr;
  if (::getifaddrs(&first) != 0) return host;
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> list(first, ::freeifaddrs);
  Addresses on4, on6;
  for (const ifaddrs* entry = first; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr) continue;
    Addresses here;
    note(here, *entry->ifa_addr);
    if (here.link_local && host.link_local.empty()) host.link_local = entry->ifa_name;
    if (entry->ifa_name == v4.interface) note(on4, *entry->ifa_addr);
    if (entry->ifa_name == v6.interface) note(on6, *entry->ifa_addr);
  }
  host.v4.link_local = on4.link_local;
  host.v6.link_local = on6.link_local;
  host.v4.usable = v4.has_gateway && on4.v4 && on4.mac;
  host.v6.usable = v6.has_gateway && on6.v6 && on6.link_local && on6.mac;
  return host;
}

namespace {

bool is_ipv6(const PortForward& port) { return port.host_ip.find(':') != std::string::npos; }

}  // namespace

std::vector<PortForward> take_unpublishable(std::vector<PortForward>& ports, const HostNetwork& host) {
  std::vector<PortForward> taken;
  if (host.v6.usable || !host.link_local.empty()) return taken;
  std::ranges::copy_if(ports, std::back_inserter(taken), is_ipv6);
  std::erase_if(ports, is_ipv6);
  return taken;
}

std::vector<std::string> address_options(const HostNetwork& host, const std::vector<PortForward>& ports,
                                         bool v6) {
  const bool wants_v6 = v6 || std::ranges::any_of(ports, is_ipv6);
  const bool by_hand6 = wants_v6 && !host.v6.usable;
  if (host.v4.usable && !by_hand6) return {};
  // One for both versions. passt takes the link-local address from it where it is for IPv6.
  const bool takes_v4 = host.v4.usable && (!by_hand6 || host.v4.link_local || host.link_local.empty());
  std::string interface = "lo";
  if (takes_v4)
    interface = host.v4.interface;
  else if (host.v6.usable)
    interface = host.v6.interface;
  else if (by_hand6 && !host.link_local.empty())
    interface = host.link_local;
  std::vector<std::string> options{"--interface", interface, "--mac-addr", kMac};
  if (!takes_v4)
    options.insert(options.end(), {"--address", kAddress4, "--netmask", kPrefix4, "--gateway", kGateway4});
  if (by_hand6) options.insert(options.end(), {"--address", kAddress6, "--gateway", kGateway6});
  return options;
}

}  // namespace snug
