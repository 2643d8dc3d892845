#include "vmm/spec/values.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

#include "vmm/base/cache_folder.h"
#include "vmm/spec/text.h"

namespace snug::detail {
namespace {

constexpr size_t kMaxName = 63;
constexpr std::string_view kCachePrefix = "cache:";

bool is_name(std::string_view text) {
  const auto alnum = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  if (text.empty() || text.size() > kMaxName || !alnum(text[0])) return false;
  for (const char c : text) {
    if (!alnum(c) && c != '_' && c != '.' && c != '-') return false;
  }
  return true;
}

// A file of a prepared image, wherever this user's cache is.
Result<std::string> parse_cache_path(const std::string& text, FileUse::Kind kind, SetContext& context) {
  const std::string folder = cache_folder();
  const std::string rest = text.substr(kCachePrefix.size());
  if (rest.empty() || rest.starts_with('/'))
    return fail("expected an image and a file after '{}', as in '{}debian-rootfs/disk', got {}", kCachePrefix,
                kCachePrefix, in_quotes(text));
  if (folder.empty()) return fail("{}: HOME is not set: there is no cache folder", in_quotes(text));
  std::string path = folder + "/" + rest;
  if (path.size() > kMaxPath) return fail("the path is longer than {} bytes: {}", kMaxPath, in_quotes(text));
  context.files.push_back({kind, path, false});
  return path;
}

}  // namespace

Result<uint64_t> parse_whole(const std::string& text, uint64_t min, uint64_t max) {
  uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  // A leading zero is octal to some and decimal to others.
  const bool plain = error == std::errc() && stop == end && (text.size() == 1 || text[0] != '0');
  if (!plain || number < min || number > max) {
    return fail("expected a whole number from {} to {}, got {}", min, max, in_quotes(text));
  }
  return number;
}

Result<uint64_t> parse_size_within(const std::string& text, uint64_t min, uint64_t max, uint64_t step) {
  const uint64_t bytes = SNUG_TRY(parse_size(text));
  if (bytes < min) return fail("{} is too little; at least {}", in_quotes(text), format_size(min));
  if (bytes > max) return fail("{} is too much; at most {}", in_quotes(text), format_size(max));
  if (bytes % step != 0) return fail("{} is not a multiple of {}", in_quotes(text), format_size(step));
  return bytes;
}

Result<TimeLimit> parse_limit(const std::string& text, Zero zero) {
  if (text == "none") return TimeLimit();
  const auto duration = SNUG_TRY(parse_duration(text));
  return duration.count() == 0 && zero == Zero::kNoLimit ? TimeLimit() : TimeLimit(duration);
}

std::string print_limit(const TimeLimit& limit) { return limit ? format_duration(*limit) : "none"; }

Result<std::string> parse_path(const std::string& text, FileUse::Kind kind, SetContext& context) {
  if (text.empty()) return fail("the path is empty");
  if (auto reason = bad_text(text)) return fail("{} in a path, got {}", *reason, in_quotes(text));
  if (text.starts_with(kCachePrefix)) return parse_cache_path(text, kind, context);
  const bool relative = !text.starts_with('/');
  std::string_view rest = text;
  while (relative && rest.starts_with("./") && rest.size() > 2) rest.remove_prefix(2);
  std::string path(rest);
  if (relative && !context.base_dir.empty()) {
    path = fmt::format("{}{}{}", context.base_dir, context.base_dir.ends_with('/') ? "" : "/", rest);
  }
  if (path.size() > kMaxPath) return fail("the path is longer than {} bytes: {}", kMaxPath, in_quotes(text));
  context.files.push_back({kind, path, relative});
  return path;
}

// A file that is called like one of the words is written with "./".
Result<std::string> parse_kernel(const std::string& text, SetContext& context) {
  if (std::find(kKernelImages.begin(), kKernelImages.end(), text) != kKernelImages.end()) return text;
  return parse_path(text, FileUse::Kind::kInput, context);
}

Result<std::string> parse_name(const std::string& text) {
  if (is_name(text)) return text;
  return fail("expected up to {} letters, digits, '_', '.' or '-', beginning with a letter or digit, got {}",
              kMaxName, in_quotes(text));
}

Result<size_t> parse_word(const std::string& text, const std::vector<std::string>& words) {
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == text) return i;
  }
  return fail("expected {}, got {}{}", or_list(words), in_quotes(text), did_you_mean(text, words));
}

// The words of YAML 1.1 as well: what one of them means is never in doubt.
Result<bool> parse_boolean(const std::string& text, std::string_view besides) {
  for (const char* word : {"true", "yes", "on"})
    if (text == word) return true;
  for (const char* word : {"false", "no", "off"})
    if (text == word) return false;
  return fail("expected {}'true' or 'false', got {}", besides, in_quotes(text));
}

// IFNAMSIZ of <linux/if.h> less the NUL, and characters that need no quoting anywhere.
bool is_interface_name(std::string_view text) {
  return !text.empty() && text.size() <= 15 && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '.' || c == '-';
  });
}

// "fd:3" or "fd:3:4", each number of at most six digits.
bool is_descriptor_list(std::string_view text) {
  if (!text.starts_with("fd:")) return false;
  size_t digits = 0;
  for (const char c : text.substr(3)) {
    if (c == ':' && digits == 0) return false;
    digits = c == ':' ? 0 : digits + 1;
    if (c != ':' && (c < '0' || c > '9' || digits > 6)) return false;
  }
  return digits > 0;
}

Result<std::string> parse_tap(const std::string& text) {
  if (!is_interface_name(text) && !is_descriptor_list(text))
    return fail("expected {}, got {}", tap_value().expected, in_quotes(text));
  return text;
}

Result<std::string> parse_serial(const std::string& text) {
  constexpr size_t kMost = 20;  // virtio 1.2, 5.2.6.1
  const bool good = text.size() <= kMost && std::all_of(text.begin(), text.end(), [](unsigned char c) {
                      return std::isalnum(c) || c == '_' || c == '.' || c == '-';
                    });
  if (!good) return fail("expected {}, got {}", serial_value().expected, in_quotes(text));
  return text;
}

Result<MacAddress> parse_mac(const std::string& text) {
  MacAddress mac{};
  const auto parts = split(text, ':');
  bool good = parts.size() == mac.size();
  for (size_t i = 0; good && i < mac.size(); ++i) {
    const char* end = parts[i].data() + parts[i].size();
    const auto [stop, error] = std::from_chars(parts[i].data(), end, mac[i], 16);
    good = parts[i].size() == 2 && error == std::errc() && stop == end;
  }
  if (!good) return fail("expected {}, got {}", mac_value().expected, in_quotes(text));
  if ((mac[0] & 1) != 0) return fail("{} is a group's address: its first byte must be even", in_quotes(text));
  if (mac == MacAddress{}) return fail("{} is nobody's address", in_quotes(text));
  return mac;
}

std::string print_mac(const MacAddress& mac) {
  std::string out;
  for (const uint8_t byte : mac) out += fmt::format("{}{:02x}", out.empty() ? "" : ":", byte);
  return out;
}

namespace {

struct PortRange {
  uint16_t first = 0;
  uint16_t last = 0;
  unsigned size() const { return last - first + 1U; }
};

// "80" or "80-89".
std::optional<PortRange> port_range(const std::string& text, uint16_t min) {
  const size_t dash = text.find('-');
  const auto first = parse_whole(text.substr(0, dash), min, 65535);
  const auto last = dash == std::string::npos ? first : parse_whole(text.substr(dash + 1), 1, 65535);
  if (!first || !last || *last < *first || (*first == 0 && *last != 0)) return std::nullopt;
  return PortRange{static_cast<uint16_t>(*first), static_cast<uint16_t>(*last)};
}

bool is_ip(const std::string& text) {
  in6_addr address{};
  return ::inet_pton(AF_INET, text.c_str(), &address) == 1 ||
         ::inet_pton(AF_INET6, text.c_str(), &address) == 1;
}

}  // namespace

namespace {

// "127.0.0.1" or "[::1]".
Result<std::string> parse_host_ip(std::string ip, const std::string& text) {
  if (ip.size() > 2 && ip.front() == '[' && ip.back() == ']') {
    ip = ip.substr(1, ip.size() - 2);
  } else if (ip.find(':') != std::string::npos) {
    return fail("an IPv6 address stands in brackets, [::1]:8080:80, got {}", in_quotes(text));
  }
  if (!is_ip(ip)) return fail("{} is not an IP address, in {}", in_quotes(ip), in_quotes(text));
  return ip;
}

// Each port of the guest has one of the host: the one in the same place, or whichever is free.
Result<std::vector<PortForward>> pair_ports(PortForward forward, PortRange host, PortRange guest,
                                            const std::string& text) {
  const bool chosen = host.first == 0;
  if (!chosen && guest.size() > 1 && host.size() != guest.size())
    return fail("{} ports of the host for {} of the guest, in {}", host.size(), guest.size(),
                in_quotes(text));
  std::vector<PortForward> forwards;
  for (unsigned i = 0; i < guest.size(); ++i) {
    forward.guest_port = static_cast<uint16_t>(guest.first + i);
    forward.host_port = chosen ? uint16_t{0} : static_cast<uint16_t>(host.first + i);
    if (guest.size() == 1 && host.size() > 1) forward.host_port_last = host.last;
    forwards.push_back(forward);
  }
  return forwards;
}

}  // namespace

// As docker and podman have them.
Result<std::vector<PortForward>> parse_ports(const std::string& text) {
  const auto wrong = [&text] { return fail("expected {}, got {}", ports_value().expected, in_quotes(text)); };
  PortForward forward;
  std::string rest = text;
  if (const size_t slash = rest.rfind('/'); slash != std::string::npos) {
    const std::string protocol = rest.substr(slash + 1);
    if (protocol != "tcp" && protocol != "udp")
      return fail("expected 'tcp' or 'udp' behind the '/', got {}", in_quotes(text));
    forward.udp = protocol == "udp";
    rest.resize(slash);
  }
  const size_t last = rest.rfind(':');
  const auto guest = port_range(last == std::string::npos ? rest : rest.substr(last + 1), 1);
  PortRange host;
  if (last != std::string::npos) {
    rest.resize(last);
    const size_t before = rest.rfind(':');
    if (before != std::string::npos) forward.host_ip = SNUG_TRY(parse_host_ip(rest.substr(0, before), text));
    const std::string port = before == std::string::npos ? rest : rest.substr(before + 1);
    // "127.0.0.1::80": any.
    const auto named = port.empty() && before != std::string::npos ? PortRange{} : port_range(port, 0);
    if (!named) return wrong();
    host = *named;
  }
  if (!guest) return wrong();
  return pair_ports(std::move(forward), host, *guest, text);
}

std::string print_port(const PortForward& forward) {
  const bool v6 = forward.host_ip.find(':') != std::string::npos;
  const std::string last =
      forward.host_port_last > forward.host_port ? fmt::format("-{}", forward.host_port_last) : "";
  return fmt::format("{}{}{}:{}{}:{}{}", v6 ? "[" : "", forward.host_ip, v6 ? "]" : "", forward.host_port,
                     last, forward.guest_port, forward.udp ? "/udp" : "");
}

namespace {

bool has_zero(std::string_view text) { return text.find('\0') != std::string_view::npos; }

}  // namespace

Result<std::string> parse_shell_line(const std::string& text) {
  if (text.find_first_not_of(' ') == std::string::npos) return fail("the command is empty");
  if (text.find('\n') != std::string::npos)
    return fail("the command has several lines: make a list of them, each is run by itself");
  if (has_zero(text)) return fail("a zero byte ends a text, got {}", in_quotes(text));
  if (text.size() > kMaxLine) return fail("longer than {} bytes", kMaxLine);
  return text;
}

// The guest's, byte for byte.
Result<std::string> parse_variable(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) return fail("expected NAME=VALUE, got {}", in_quotes(text));
  if (has_zero(text)) return fail("a zero byte ends a text, got {}", in_quotes(text));
  if (text.size() > kMaxVariable) return fail("longer than {} bytes", kMaxVariable);
  return text;
}

Result<std::string> parse_guest_folder(const std::string& text) {
  if (!text.starts_with('/'))
    return fail("expected {}, got {}", guest_folder_value().expected, in_quotes(text));
  if (has_zero(text)) return fail("a zero byte ends a text, got {}", in_quotes(text));
  if (text.size() > kMaxPath) return fail("longer than {} bytes", kMaxPath);
  return text;
}

// A user's or group's name, or number.
bool is_account(std::string_view text) {
  const auto plain = [](unsigned char c) { return std::isalnum(c) || c == '_'; };
  return !text.empty() && text.size() <= 63 && plain(static_cast<unsigned char>(text.front())) &&
         std::all_of(text.begin(), text.end(),
                     [&plain](unsigned char c) { return plain(c) || c == '.' || c == '-'; });
}

Result<std::string> parse_user(const std::string& text) {
  const std::string_view all(text);
  const size_t colon = all.find(':');
  const bool good = is_account(all.substr(0, colon)) &&
                    (colon == std::string_view::npos || is_account(all.substr(colon + 1)));
  if (!good) return fail("expected {}, got {}", user_value().expected, in_quotes(text));
  return text;
}

Result<std::string> parse_image(const std::string& text, const SetContext& context) {
  constexpr size_t kLongest = 512;
  // Of skopeo's transports those whose rest is a path (containers-transports(5)).
  constexpr std::array<std::string_view, 4> kPaths{"oci:", "oci-archive:", "docker-archive:", "dir:"};
  const bool good =
      !text.empty() && text.size() <= kLongest &&
      std::none_of(text.begin(), text.end(), [](unsigned char c) { return c <= ' ' || c == 0x7f; });
  if (!good) return fail("expected {}, got {}", image_value().expected, in_quotes(text));
  for (const std::string_view transport : kPaths) {
    if (!text.starts_with(transport) || context.base_dir.empty()) continue;
    std::string_view path = std::string_view(text).substr(transport.size());
    if (path.empty() || path.front() == '/' || path.front() == ':') continue;
    while (path.starts_with("./") && path.size() > 2) path.remove_prefix(2);
    return fmt::format("{}{}{}{}", transport, context.base_dir, context.base_dir.ends_with('/') ? "" : "/",
                       path);
  }
  return text;
}

Result<std::string> parse_share_source(const std::string& text, SetContext& context) {
  std::string path = SNUG_TRY(parse_path(text, FileUse::Kind::kShare, context));
  while (path.size() > 1 && (path.ends_with('/') || path.ends_with("/.")))
    path.resize(std::max(path.rfind('/'), size_t{1}));
  context.files.back().path = path;
  return path;
}

Result<std::string> parse_share_target(const std::string& text) {
  if (!text.starts_with('/'))
    return fail("expected {}, got {}", share_target_value().expected, in_quotes(text));
  if (has_zero(text)) return fail("a zero byte ends a text, got {}", in_quotes(text));
  std::string path;
  for (const std::string& name : split(text, '/')) {
    if (name == "..") return fail("'..' is not allowed in a target, got {}", in_quotes(text));
    if (!name.empty() && name != ".") path += "/" + name;
  }
  if (path.empty()) return fail("{} is the guest's own root: name a folder below it", in_quotes(text));
  if (path.size() > kMaxPath) return fail("longer than {} bytes", kMaxPath);
  return path;
}

// virtio 1.2, 5.11.4 has 36 bytes for it.
Result<std::string> parse_share_tag(const std::string& text) {
  constexpr size_t kMost = 36;
  const auto fits = [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '.' || c == '-'; };
  if (text.size() > kMost) return fail("longer than {} bytes, got {}", kMost, in_quotes(text));
  if (text.empty() || !std::all_of(text.begin(), text.end(), fits) || text[0] == '-' || text[0] == '.')
    return fail("expected {}, got {}", share_tag_value().expected, in_quotes(text));
  return text;
}

Result<void> append_words(std::string& line, const std::string& text) {
  std::string flat = text;
  for (char& c : flat) {
    if (c == '\n' || c == '\r' || c == '\t') c = ' ';
  }
  const size_t first = flat.find_first_not_of(' ');
  if (first == std::string::npos) return {};
  flat = flat.substr(first, flat.find_last_not_of(' ') - first + 1);
  if (auto reason = bad_text(flat)) return fail("{}, got {}", *reason, in_quotes(flat));
  if (line.size() + 1 + flat.size() > kMaxLine) return fail("longer than {} bytes", kMaxLine);
  if (!line.empty()) line += ' ';
  line += flat;
  return {};
}

Result<PortSpec> parse_port_end(const std::string& text, SetContext& context) {
  if (text == "pty") return PortSpec{PortKind::kPty, {}};
  if (text.starts_with("file:"))
    return PortSpec{PortKind::kFile, SNUG_TRY(parse_path(text.substr(5), FileUse::Kind::kOutput, context))};
  if (text.starts_with("socket:"))
    return PortSpec{PortKind::kSocket, SNUG_TRY(parse_path(text.substr(7), FileUse::Kind::kSocket, context))};
  const std::vector<std::string> words{"pty", "file:PATH", "socket:PATH"};
  return fail("expected {}, got {}{}", or_list(words), in_quotes(text), did_you_mean(text, words));
}

std::string print_port_end(const PortSpec& port) {
  if (port.kind == PortKind::kPty) return "pty";
  return (port.kind == PortKind::kFile ? "file:" : "socket:") + port.path;
}

Result<ConsoleSpec> parse_console(const std::string& text, SetContext& context) {
  const std::vector<std::string> words{"stdio", "file:PATH", "pty", "none"};
  if (text == "stdio") return ConsoleSpec{ConsoleKind::kStdio, {}};
  if (text == "pty") return ConsoleSpec{ConsoleKind::kPty, {}};
  if (text == "none") return ConsoleSpec{ConsoleKind::kNone, {}};
  if (text.starts_with("file:")) {
    return ConsoleSpec{ConsoleKind::kFile,
                       SNUG_TRY(parse_path(text.substr(5), FileUse::Kind::kOutput, context))};
  }
  const bool like_path = text.find('/') != std::string::npos && !bad_text(text);
  return fail(
      "expected {}, got {}{}", or_list(words), in_quotes(text),
      like_path ? fmt::format(" (did you mean {}?)", in_quotes("file:" + text)) : did_you_mean(text, words));
}

std::string print_console(const ConsoleSpec& console) {
  switch (console.kind) {
    case ConsoleKind::kStdio:
      return "stdio";
    case ConsoleKind::kFile:
      return "file:" + console.path;
    case ConsoleKind::kPty:
      return "pty";
    case ConsoleKind::kNone:
      return "none";
  }
  return "none";
}

Result<VsockSocket> parse_vsock(const std::string& text, SetContext& context) {
  if (text == "auto") return VsockSocket{VsockKind::kAuto, {}};
  if (text == "none") return VsockSocket{VsockKind::kNone, {}};
  // A word is more likely a slip than the name of a socket.
  if (text.find_first_of("./") == std::string::npos)
    return fail("expected {}, got {}{}", vsock_value().expected, in_quotes(text),
                did_you_mean(text, std::vector<std::string>{"auto", "none"}));
  return VsockSocket{VsockKind::kPath, SNUG_TRY(parse_path(text, FileUse::Kind::kSocket, context))};
}

std::string print_vsock(const VsockSocket& socket) {
  switch (socket.kind) {
    case VsockKind::kNone:
      return "none";
    case VsockKind::kAuto:
      return "auto";
    case VsockKind::kPath:
      return socket.path;
  }
  return "none";
}

}  // namespace snug::detail
