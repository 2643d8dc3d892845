#include "vmm/spec/network.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <tuple>

#include "vmm/spec/values.h"

namespace snug {
namespace {

constexpr size_t kInterfacesMax = 8;
constexpr uint32_t kMtuMin = 576;  // RFC 791: what every host must take

}  // namespace

MacAddress default_mac(const std::string& machine_name, size_t index) {
  // FNV-1a, 64 bits.
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : fmt::format("{}/{}", machine_name, index))
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  MacAddress mac{};
  for (size_t i = 0; i < mac.size(); ++i) mac[i] = static_cast<uint8_t>(hash >> (8 * i));
  mac[0] = static_cast<uint8_t>((mac[0] & 0xfc) | 0x02);
  return mac;
}

std::vector<NetSpec> network_interfaces(const Spec& spec) {
  std::vector<NetSpec> nics;
  for (const NetSpec& net : spec.net)
    if (net.mode != NetMode::kNone) nics.push_back(net);
  if (!spec.ports.empty()) {
    auto user = std::ranges::find(nics, NetMode::kUser, &NetSpec::mode);
    if (user == nics.end()) user = nics.emplace(nics.end());
    user->ports.insert(user->ports.end(), spec.ports.begin(), spec.ports.end());
  }
  for (size_t i = 0; i < nics.size(); ++i)
    if (!nics[i].mac) nics[i].mac = default_mac(spec.name, i);
  return nics;
}

std::vector<std::string> network_problems(const Spec& spec) {
  std::vector<std::string> problems;
  for (size_t i = 0; i < spec.net.size(); ++i) {
    const NetSpec& net = spec.net[i];
    if (!net.ports.empty() && net.mode != NetMode::kUser)
      problems.push_back(fmt::format("net[{}]: ports are published by mode user only", i));
    if (net.mtu != 0 && net.mtu < kMtuMin)
      problems.push_back(fmt::format("net[{}]: mtu: at least {}, got {}", i, kMtuMin, net.mtu));
  }
  const auto nics = network_interfaces(spec);
  if (nics.size() > kInterfacesMax)
    problems.push_back(fmt::format("net: at most {} interfaces, got {}", kInterfacesMax, nics.size()));
  std::set<std::tuple<std::string, uint16_t, bool>> ports;
  std::set<MacAddress> macs;
  for (const NetSpec& nic : nics) {
    if (!macs.insert(*nic.mac).second)
      problems.push_back(fmt::format("net: two interfaces with the address {}", detail::print_mac(*nic.mac)));
    for (const PortForward& port : nic.ports)
      if (!ports.emplace(port.host_ip, port.host_port, port.udp).second)
        problems.push_back(fmt::format("ports: {} is published twice", detail::print_port(port)));
  }
  return problems;
}

}  // namespace snug
