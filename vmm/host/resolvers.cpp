#include "vmm/host/resolvers.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>

namespace snug {
namespace {

constexpr std::string_view kBlanks = " \t\r";

// Each line without its end.
template <class Action>
void for_each_line(std::string_view text, Action action) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    action(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

// The address that a line names; "" when it is about something else.
std::string resolver_of(std::string_view line) {
  constexpr std::string_view kKey = "nameserver";
  if (!line.starts_with(kKey) || line.size() == kKey.size() ||
      kBlanks.find(line[kKey.size()]) == std::string_view::npos)
    return {};
  const size_t begin = line.find_first_not_of(kBlanks, kKey.size());
  if (begin == std::string_view::npos) return {};
  return std::string(line.substr(begin, line.find_first_of(kBlanks, begin) - begin));
}

enum class Where { kNowhere, kLoopback4, kLoopback6, kElsewhere };

Where place_of(const std::string& address) {
  in_addr v4{};
  // 0.0.0.0 and ::, to which Linux connects as to itself.
  if (::inet_pton(AF_INET, address.c_str(), &v4) == 1)
    return (ntohl(v4.s_addr) >> 24) == 127 || v4.s_addr == 0 ? Where::kLoopback4 : Where::kElsewhere;
  in6_addr v6{};
  if (::inet_pton(AF_INET6, address.substr(0, address.find('%')).c_str(), &v6) != 1) return Where::kNowhere;
  return IN6_IS_ADDR_LOOPBACK(&v6) || IN6_IS_ADDR_UNSPECIFIED(&v6) ? Where::kLoopback6 : Where::kElsewhere;
}

}  // namespace

Resolvers resolvers_in(std::string_view resolv_conf) {
  Resolvers found;
  for_each_line(resolv_conf, [&found](std::string_view line) {
    const Where where = place_of(resolver_of(line));
    found.loopback4 |= where == Where::kLoopback4;
    found.loopback6 |= where == Where::kLoopback6;
    found.others |= where == Where::kElsewhere;
  });
  return found;
}

std::vector<std::string> reachable_resolvers(std::string_view resolv_conf) {
  std::vector<std::string> found;
  for_each_line(resolv_conf, [&found](std::string_view line) {
    std::string address = resolver_of(line);
    if (place_of(address) == Where::kElsewhere) found.push_back(std::move(address));
  });
  return found;
}

std::string forwarding_resolv_conf(std::string_view resolv_conf) {
  std::string on_loopback, others, rest;
  for_each_line(resolv_conf, [&](std::string_view line) {
    const std::string address = resolver_of(line);
    switch (place_of(address)) {
      case Where::kLoopback4:
      case Where::kLoopback6:
        on_loopback += fmt::format("nameserver {}\n", address);
        break;
      case Where::kElsewhere:
        others += fmt::format("nameserver {}\n", address);
        break;
      case Where::kNowhere:
        if (!line.starts_with("nameserver")) rest += fmt::format("{}\n", line);
        break;
    }
  });
  const Resolvers found = resolvers_in(resolv_conf);
  std::string text = on_loopback;
  if (found.loopback4) text += fmt::format("nameserver {}\n", kDnsForward4);
  if (found.loopback6) text += fmt::format("nameserver {}\n", kDnsForward6);
  return text + others + rest;
}

}  // namespace snug
