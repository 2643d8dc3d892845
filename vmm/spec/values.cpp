#include "vmm/spec/values.h"

#include <arpa/inet.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "vmm/spec/text.h"

namespace snug::detail {
namespace {

constexpr size_t kMaxName = 63;
constexpr size_t kMaxPath = 4095;  // PATH_MAX without its NUL
constexpr size_t kMaxLine = size_t{64} << 10;

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

Result<TimeLimit> parse_limit(const std::string& text) {
  if (text == "none") return TimeLimit();
  const auto duration = SNUG_TRY(parse_duration(text));
  return duration.count() == 0 ? TimeLimit() : TimeLimit(duration);
}

std::string print_limit(const TimeLimit& limit) { return limit ? format_duration(*limit) : "none"; }

Result<std::string> parse_path(const std::string& text, FileUse::Kind kind, SetContext& context) {
  if (text.empty()) return fail("the path is empty");
  if (auto reason = bad_text(text)) return fail("{} in a path, got {}", *reason, in_quotes(text));
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
Result<bool> parse_boolean(const std::string& text) {
  for (const char* word : {"true", "yes", "on"})
    if (text == word) return true;
  for (const char* word : {"false", "no", "off"})
    if (text == word) return false;
  return fail("expected 'true' or 'false', got {}", in_quotes(text));
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

std::string print_mac(const MacAddress& mac) { return fmt::format("{:02x}", fmt::join(mac, ":")); }

namespace {

// 1 to 65535, 0 when it is none.
uint16_t port_number(const std::string& text) {
  const auto number = parse_whole(text, 1, 65535);
  return number ? static_cast<uint16_t>(*number) : uint16_t{0};
}

bool is_ip(const std::string& text) {
  in6_addr address{};
  return ::inet_pton(AF_INET, text.c_str(), &address) == 1 ||
         ::inet_pton(AF_INET6, text.c_str(), &address) == 1;
}

}  // namespace

Result<PortForward> parse_port(const std::string& text) {
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
  if (last == std::string::npos && port_number(rest) != 0)
    return fail("expected {}, got {} (did you mean '{}:{}'?)", ports_value().expected, in_quotes(text), rest,
                rest);
  if (last == std::string::npos) return wrong();
  forward.guest_port = port_number(rest.substr(last + 1));
  rest.resize(last);
  if (const size_t before = rest.rfind(':'); before != std::string::npos) {
    std::string ip = rest.substr(0, before);
    if (ip.size() > 2 && ip.front() == '[' && ip.back() == ']') {
      ip = ip.substr(1, ip.size() - 2);
    } else if (ip.find(':') != std::string::npos) {
      return fail("an IPv6 address stands in brackets, [::1]:8080:80, got {}", in_quotes(text));
    }
    if (!is_ip(ip)) return fail("{} is not an IP address, in {}", in_quotes(ip), in_quotes(text));
    forward.host_ip = ip;
    rest = rest.substr(before + 1);
  }
  forward.host_port = port_number(rest);
  if (forward.host_port == 0 || forward.guest_port == 0) return wrong();
  return forward;
}

std::string print_port(const PortForward& forward) {
  const bool v6 = forward.host_ip.find(':') != std::string::npos;
  return fmt::format("{}{}{}:{}:{}{}", v6 ? "[" : "", forward.host_ip, v6 ? "]" : "", forward.host_port,
                     forward.guest_port, forward.udp ? "/udp" : "");
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

Value whole_value(uint64_t min, uint64_t max) {
  return {.expected = fmt::format("a whole number from {} to {}", min, max),
          .schema = fmt::format(R"("type": "integer", "minimum": {}, "maximum": {})", min, max),
          .is_literal = true};
}

Value boolean_value() {
  return {.expected = "'true' or 'false'",
          .schema = R"("type": "boolean")",
          .words = {"true", "false"},
          .is_literal = true};
}

Value serial_value() {
  return {.expected = "at most 20 letters, digits, '_', '.' and '-'",
          .schema = R"("type": "string", "pattern": "^[a-zA-Z0-9_.-]{0,20}$")"};
}

Value mac_value() {
  return {.expected = "a MAC address such as 02:00:00:12:34:56",
          .schema = R"("type": "string", "pattern": "^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$")"};
}

Value ports_value() {
  return {.expected = "[HOST_IP:]HOST_PORT:GUEST_PORT[/udp]",
          .schema = R"("type": "string", "pattern": )"
                    R"("^(([0-9.]+|\\[[0-9a-fA-F:.]+\\]):)?[0-9]{1,5}:[0-9]{1,5}(/(tcp|udp))?$")",
          .repeatable = true};
}

Value size_value(uint64_t min, uint64_t max) {
  return {.expected = fmt::format("a size from {} to {}", format_size(min), format_size(max)),
          .schema = R"("type": "string", "pattern": "^[0-9]+[KkMmGgTt]([Ii][Bb])?$")"};
}

Value limit_value() {
  return {.expected = "a duration or 'none'",
          .schema = R"("anyOf": [{"type": "string", "pattern": )"
                    R"("^(none|0|(?=[0-9])([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$"}, {"const": 0}])",
          .words = {"none"}};
}

Value path_value(bool list) {
  return {.expected = list ? "a path or a list of paths" : "a path",
          .schema = fmt::format(R"("type": "string", "minLength": 1, "maxLength": {})", kMaxPath),
          .is_path = true,
          .repeatable = list};
}

Value name_value() {
  return {.expected = "a name",
          .schema = R"("type": "string", "pattern": "^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$")"};
}

Value word_value(std::vector<std::string> words) {
  std::string list;
  for (const auto& word : words) list += (list.empty() ? "" : ", ") + json_string(word);
  return {
      .expected = or_list(words), .schema = fmt::format(R"("enum": [{}])", list), .words = std::move(words)};
}

Value line_value() {
  return {.expected = "text or a list of texts",
          .schema = R"("type": "string")",
          .repeatable = true,
          .joined = true};
}

Value console_value() {
  return {.expected = "stdio, file:PATH, pty or none",
          .schema = R"("type": "string", "pattern": "^(stdio|pty|none|file:.+)$")",
          .words = {"stdio", "file:", "pty", "none"}};
}

}  // namespace snug::detail
