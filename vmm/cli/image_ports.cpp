#include "vmm/cli/image_ports.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "vmm/base/log.h"
#include "vmm/spec/nested_keys.h"
#include "vmm/spec/text.h"

namespace snug::cli {

Result<void> publish_exposed(const std::vector<std::string>& exposed, Spec& spec) {
  constexpr std::string_view kTcp = "/tcp", kUdp = "/udp";
  for (const std::string& text : exposed) {
    std::string_view port(text);
    PortForward forward;
    forward.udp = port.ends_with(kUdp);
    if (forward.udp || port.ends_with(kTcp)) port.remove_suffix(kTcp.size());
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), forward.guest_port);
    if (error != std::errc() || end != port.data() + port.size() || forward.guest_port == 0) {
      log_warn("publish_all: the image exposes {}, which is no port of TCP or UDP; left out",
               in_quotes(text));
      continue;
    }
    const auto is_same = [&](const PortForward& each) {
      return each.guest_port == forward.guest_port && each.udp == forward.udp;
    };
    bool published = std::ranges::any_of(spec.ports, is_same);
    for (const NetSpec& net : spec.net) published |= std::ranges::any_of(net.ports, is_same);
    if (published) continue;
    if (spec.ports.size() >= kPortsMax)
      return fail_with_hint(fmt::format("publish_all: more than {} ports", kPortsMax),
                            "publish those that are needed: ports");
    spec.ports.push_back(forward);
  }
  return {};
}

}  // namespace snug::cli
