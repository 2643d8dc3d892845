#include <fmt/format.h>
#include <fmt/ranges.h>

#include "vmm/spec/text.h"
#include "vmm/spec/values.h"

namespace snug::detail {

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

Value auto_or_boolean_value() {
  return {.expected = "'auto', 'true' or 'false'",
          .schema = R"("enum": ["auto", true, false])",
          .words = {"auto", "true", "false"}};
}

Value tap_value() {
  return {.expected = "the name of an interface (at most 15 characters) or fd:N",
          .schema = R"("type": "string", "pattern": "^(fd(:[0-9]{1,6})+|[a-zA-Z0-9_.-]{1,15})$")"};
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
  return {.expected = "[[HOST_IP:]HOST_PORT:]GUEST_PORT[/udp]",
          .schema =
              R"("type": "string", "pattern": )"
              R"("^((([0-9.]+|\\[[0-9a-fA-F:.]+\\]):([0-9]{1,5}(-[0-9]{1,5})?)?|[0-9]{1,5}(-[0-9]{1,5})?):)?)"
              R"([0-9]{1,5}(-[0-9]{1,5})?(/(tcp|udp))?$")",
          .repeatable = true};
}

Value shell_lines_value() {
  return {.expected = "a command or a list of commands",
          .schema = fmt::format(R"("type": "string", "minLength": 1, "maxLength": {})", kMaxLine),
          .repeatable = true};
}

Value variables_value() {
  return {.expected = "NAME=VALUE, a list of them, or a map of NAME: VALUE",
          .schema = R"("type": "string", "pattern": "^[^=]+=")",
          .repeatable = true,
          .assignments = true};
}

Value guest_folder_value() {
  return {.expected = "an absolute path in the guest", .schema = R"("type": "string", "pattern": "^/")"};
}

Value user_value() {
  return {.expected = "a user of the guest, NAME[:GROUP] or UID[:GID]",
          .schema = R"("type": "string", "pattern": )"
                    R"("^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,62}(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,62})?$")"};
}

Value image_value() {
  return {.expected =
              "a container image's name, such as alpine or quay.io/me/app:1.2, of at most 512 bytes without "
              "spaces",
          .schema = R"("type": "string", "pattern": "^[^ \t\n]+$", "maxLength": 512)"};
}

Value share_target_value() {
  return {.expected = "an absolute path in the guest", .schema = R"("type": "string", "pattern": "^/")"};
}

Value share_tag_value() {
  return {.expected = "up to 36 letters, digits, '_', '.' or '-', beginning with a letter, a digit or '_'",
          .schema = R"("type": "string", "pattern": "^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,35}$")"};
}

Value size_value(uint64_t min, uint64_t max) {
  return {.expected = fmt::format("a size from {} to {}", format_size(min), format_size(max)),
          .schema = R"("type": "string", "pattern": "^[0-9]+[KkMmGgTt]([Ii][Bb])?$")"};
}

Value size_or_none_value(uint64_t max) {
  return {.expected = fmt::format("a size of at most {} or 'none'", format_size(max)),
          .schema = R"("anyOf": [{"type": "string", "pattern": "^(none|0|[0-9]+[KkMmGgTt]([Ii][Bb])?)$"}, )"
                    R"({"const": 0}])",
          .words = {"none"}};
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

Value kernel_value() {
  Value value = path_value(false);
  value.expected = fmt::format("a path, {}", fmt::join(kKernelImages, " or "));
  return value;
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

Value vsock_value() {
  return {.expected = "auto, none or a path with a '/' or '.' in it",
          .schema = R"("type": "string", "pattern": "^(auto|none|.*[./].*)$")",
          .words = {"auto", "none"}};
}

Value port_end_value() {
  return {.expected = "pty, file:PATH or socket:PATH",
          .schema = R"("type": "string", "pattern": "^(pty|(file|socket):.+)$")",
          .words = {"pty", "file:", "socket:"}};
}

Value console_value() {
  return {.expected = "stdio, file:PATH, pty or none",
          .schema = R"("type": "string", "pattern": "^(stdio|pty|none|file:.+)$")",
          .words = {"stdio", "file:", "pty", "none"}};
}

}  // namespace snug::detail
