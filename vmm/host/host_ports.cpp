#include "vmm/host/host_ports.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <tuple>

#include "vmm/base/unique_fd.h"
#include "vmm/spec/values.h"

namespace snug {
namespace {

sockaddr_storage address_of(const PortForward& forward, socklen_t& length) {
  sockaddr_storage storage{};
  const bool v6 = forward.host_ip.find(':') != std::string::npos;
  if (v6) {
    auto& address = reinterpret_cast<sockaddr_in6&>(storage);
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(forward.host_port);
    ::inet_pton(AF_INET6, forward.host_ip.c_str(), &address.sin6_addr);
    length = sizeof address;
  } else {
    auto& address = reinterpret_cast<sockaddr_in&>(storage);
    address.sin_family = AF_INET;
    address.sin_port = htons(forward.host_port);
    ::inet_pton(AF_INET, forward.host_ip.c_str(), &address.sin_addr);
    length = sizeof address;
  }
  return storage;
}

// A socket with that port, as long as it is open. Errors: an errno.
tl::expected<UniqueFd, int> bind_port(const PortForward& forward) {
  socklen_t length = 0;
  const sockaddr_storage address = address_of(forward, length);
  UniqueFd probe(::socket(address.ss_family, (forward.udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0));
  // A host without IPv6 has none of its addresses either.
  if (!probe) return tl::unexpected(errno == EAFNOSUPPORT ? EADDRNOTAVAIL : errno);
  const int on = 1;
  if (!forward.udp) ::setsockopt(probe.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // As passt does: beside the same port of IPv4.
  if (address.ss_family == AF_INET6) ::setsockopt(probe.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (::bind(probe.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0)
    return tl::unexpected(errno);
  return probe;
}

uint16_t port_of(const UniqueFd& socket) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &length);
  const bool v6 = address.ss_family == AF_INET6;
  return ntohs(v6 ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                  : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

tl::unexpected<Error> refused(const PortForward& forward, int error) {
  const std::string what = fmt::format("publish {} port {} on {}: {}", forward.udp ? "UDP" : "TCP",
                                       forward.host_port, forward.host_ip, errno_text(error));
  if (error == EADDRINUSE) return fail_with_hint(what, "choose another host port, or end what uses it");
  if (error == EACCES) return fail_with_hint(what, "choose a host port of 1024 or more");
  if (error == EADDRNOTAVAIL) return fail_with_hint(what, "no interface of this host has that address");
  return fail("{}", what);
}

}  // namespace

Result<void> check_port(const PortForward& forward) {
  const auto probe = bind_port(forward);
  if (probe) return {};
  return refused(forward, probe.error());
}

Result<void> choose_ports(std::vector<PortForward>& ports) {
  std::vector<UniqueFd> held;  // until all have one
  const auto is_named = [&ports](const PortForward& wanted) {
    return std::any_of(ports.begin(), ports.end(), [&](const PortForward& other) {
      return &other != &wanted && other.host_port_last == 0 && other.host_port == wanted.host_port &&
             other.udp == wanted.udp;
    });
  };
  for (PortForward& forward : ports) {
    if (forward.host_port != 0 && forward.host_port_last == 0) continue;
    const std::string wish = detail::print_port(forward);
    const uint16_t last = std::exchange(forward.host_port_last, 0);
    for (;;) {
      auto socket = bind_port(forward);
      const int error = socket ? 0 : socket.error();
      if (socket) {
        forward.host_port = port_of(*socket);
        held.push_back(std::move(*socket));
        if (!is_named(forward)) break;
      }
      if (error != 0 && error != EADDRINUSE) return refused(forward, error);
      if (last == 0 && error == 0)
        forward.host_port = 0;  // the next one of the host's choice
      else if (forward.host_port < last)
        ++forward.host_port;
      else
        return fail_with_hint(fmt::format("publish {}: no port is free", wish),
                              "name another, or a larger range");
    }
  }
  return {};
}

}  // namespace snug
