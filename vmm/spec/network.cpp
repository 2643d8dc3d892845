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

std::optional<std::vector<int>> tap_descriptors(const std::string& tap) {
  if (!tap.starts_with("fd:")) return std::nullopt;
  std::vector<int> numbers;
  for (size_t at = 2; at < tap.size(); at = std::min(tap.find(':', at + 1), tap.size()))
    numbers.push_back(std::stoi(tap.substr(at + 1)));
  return numbers;
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
  for (NetSpec& net : nics)
    if (const auto descriptors = tap_descriptors(net.tap))
      net.queues = static_cast<uint32_t>(descriptors->size());
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
    if ((net.mode == NetMode::kTap) == net.tap.empty())
      problems.push_back(net.tap.empty()
                             ? fmt::format("net[{}]: mode tap needs the interface's name: tap: tap0", i)
                             : fmt::format("net[{}]: tap: {} needs mode: tap", i, net.tap));
    if (net.queues > 1 && net.mode != NetMode::kTap)
      problems.push_back(fmt::format("net[{}]: several queues are for mode tap only", i));
    const auto descriptors = tap_descriptors(net.tap);
    if (descriptors && (descriptors->size() > 16 || (net.queues > 1 && net.queues != descriptors->size())))
      problems.push_back(
          fmt::format("net[{}]: {} descriptors for {} queues", i, descriptors->size(), net.queues));
    if (net.vhost != VhostUse::kAuto && net.mode != NetMode::kTap)
      problems.push_back(fmt::format("net[{}]: vhost is for mode tap only", i));
    if (net.mtu != 0 && net.mtu < kMtuMin)
      problems.push_back(fmt::format("net[{}]: mtu: at least {}, got {}", i, kMtuMin, net.mtu));
  }
  const auto nics = network_interfaces(spec);
  if (nics.size() > kInterfacesMax)
    problems.push_back(fmt::format("net: at most {} interfaces, got {}", kInterfacesMax, nics.size()));
  std::set<std::tuple<std::string, uint16_t, bool>> ports;
  std::set<MacAddress> macs;
  std::set<std::string> taps;
  std::set<int> descriptors;
  for (const NetSpec& nic : nics) {
    if (const auto numbers = tap_descriptors(nic.tap)) {
      for (const int number : *numbers)
        if (!descriptors.insert(number).second)
          problems.push_back(fmt::format("net: descriptor {} is there twice", number));
    } else if (!nic.tap.empty() && !taps.insert(nic.tap).second) {
      problems.push_back(fmt::format("net: {} is there twice", nic.tap));
    }
    if (!macs.insert(*nic.mac).second)
      problems.push_back(fmt::format("net: two interfaces with the address {}", detail::print_mac(*nic.mac)));
    for (const PortForward& port : nic.ports)
      if (port.host_port != 0 && port.host_port_last == 0 &&
          !ports.emplace(port.host_ip, port.host_port, port.udp).second)
        problems.push_back(fmt::format("ports: {} is published twice", detail::print_port(port)));
  }
  return problems;
}

}  // namespace snug
