// The kinds of values that rows of the table are made of. `member` is where the value goes.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "vmm/spec/key.h"
#include "vmm/spec/spec.h"
#include "vmm/spec/units.h"

namespace snug {

// What 0 is to a time limit.
enum class Zero { kNoLimit, kAtOnce };

namespace detail {

constexpr size_t kMaxPath = 4095;  // PATH_MAX without its NUL
constexpr size_t kMaxLine = size_t{64} << 10;
constexpr size_t kMaxVariable = (size_t{128} << 10) - 1;  // MAX_ARG_STRLEN of Linux without its NUL

// The table is for T and the member is of type M: turns functions over M into functions over void*.
template <class T, class M, class Set, class Print>
ValueOf<T> bind(Value value, M T::*member, Set set, Print print) {
  value.set = [member, set](void* object, const std::string& text, SetContext& context) -> Result<void> {
    return set(static_cast<T*>(object)->*member, text, context);
  };
  value.clear = [member](void* object) { static_cast<T*>(object)->*member = T{}.*member; };
  value.print = [member, print](const void* object) { return print(static_cast<const T*>(object)->*member); };
  return {std::make_shared<const Value>(std::move(value))};
}

Result<uint64_t> parse_whole(const std::string& text, uint64_t min, uint64_t max);
Result<uint64_t> parse_size_within(const std::string& text, uint64_t min, uint64_t max, uint64_t step);
Result<TimeLimit> parse_limit(const std::string& text, Zero zero);
std::string print_limit(const TimeLimit& limit);
Result<std::string> parse_path(const std::string& text, FileUse::Kind kind, SetContext& context);
Result<std::string> parse_kernel(const std::string& text, SetContext& context);
Result<std::string> parse_name(const std::string& text);
Result<size_t> parse_word(const std::string& text, const std::vector<std::string>& words);
// `besides`: what else the value may be, to be said.
Result<bool> parse_boolean(const std::string& text, std::string_view besides = {});
Result<std::string> parse_serial(const std::string& text);
Result<std::string> parse_tap(const std::string& text);
Result<MacAddress> parse_mac(const std::string& text);
std::string print_mac(const MacAddress& mac);
// One, or one for each port of a range. At least one.
Result<std::vector<PortForward>> parse_ports(const std::string& text);
std::string print_port(const PortForward& forward);
Result<std::string> parse_shell_line(const std::string& text);
Result<std::string> parse_variable(const std::string& text);
Result<std::string> parse_guest_folder(const std::string& text);
Result<std::string> parse_user(const std::string& text);
// What it names is for vmm/oci to say; the path of one that lies in a file or a folder is made absolute.
Result<std::string> parse_image(const std::string& text, const SetContext& context);
Result<std::string> parse_share_source(const std::string& text, SetContext& context);
// Without a slash at its end, nor "//" and "/./" in it.
Result<std::string> parse_share_target(const std::string& text);
Result<std::string> parse_share_tag(const std::string& text);
Result<void> append_words(std::string& line, const std::string& text);
Result<PortSpec> parse_port_end(const std::string& text, SetContext& context);
std::string print_port_end(const PortSpec& port);
Result<ConsoleSpec> parse_console(const std::string& text, SetContext& context);
std::string print_console(const ConsoleSpec& console);
Result<VsockSocket> parse_vsock(const std::string& text, SetContext& context);
std::string print_vsock(const VsockSocket& socket);

// What each kind is: in words, in the schema, on the command line (value_kinds.cpp).
Value whole_value(uint64_t min, uint64_t max);
Value size_value(uint64_t min, uint64_t max);
Value boolean_value();
Value auto_or_boolean_value();
Value serial_value();
Value tap_value();
Value mac_value();
Value ports_value();
Value shell_lines_value();
Value variables_value();
Value guest_folder_value();
Value user_value();
Value image_value();
Value share_target_value();
Value share_tag_value();
Value limit_value();
Value path_value(bool list);
Value kernel_value();
Value name_value();
Value word_value(std::vector<std::string> words);
Value line_value();
Value port_end_value();
Value size_or_none_value(uint64_t max);
Value console_value();
Value vsock_value();

inline std::vector<std::string> one_or_none(const std::string& text) {
  return text.empty() ? std::vector<std::string>{} : std::vector<std::string>{text};
}

}  // namespace detail

template <class T>
ValueOf<T> whole_number(uint32_t T::*member, uint32_t min, uint32_t max) {
  return detail::bind(
      detail::whole_value(min, max), member,
      [=](uint32_t& out, const std::string& text, SetContext&) -> Result<void> {
        out = static_cast<uint32_t>(SNUG_TRY(detail::parse_whole(text, min, max)));
        return {};
      },
      [](uint32_t number) { return std::vector{std::to_string(number)}; });
}

// Nothing unless it is said.
template <class T>
ValueOf<T> optional_number(std::optional<uint32_t> T::*member, uint32_t min, uint32_t max) {
  return detail::bind(
      detail::whole_value(min, max), member,
      [=](std::optional<uint32_t>& out, const std::string& text, SetContext&) -> Result<void> {
        out = static_cast<uint32_t>(SNUG_TRY(detail::parse_whole(text, min, max)));
        return {};
      },
      [](const std::optional<uint32_t>& number) {
        return number ? std::vector{std::to_string(*number)} : std::vector<std::string>{};
      });
}

template <class T>
ValueOf<T> power_of_two(uint32_t T::*member, uint32_t min, uint32_t max) {
  return detail::bind(
      detail::whole_value(min, max), member,
      [=](uint32_t& out, const std::string& text, SetContext&) -> Result<void> {
        const auto number = static_cast<uint32_t>(SNUG_TRY(detail::parse_whole(text, min, max)));
        if (!std::has_single_bit(number))
          return fail("{} is not a power of two; {} is", number, std::bit_floor(number));
        out = number;
        return {};
      },
      [](uint32_t number) { return std::vector{std::to_string(number)}; });
}

template <class T>
ValueOf<T> boolean(bool T::*member) {
  return detail::bind(
      detail::boolean_value(), member,
      [](bool& out, const std::string& text, SetContext&) -> Result<void> {
        out = SNUG_TRY(detail::parse_boolean(text));
        return {};
      },
      [](bool value) { return std::vector<std::string>{value ? "true" : "false"}; });
}

// The same, whose flag needs no value.
template <class T>
ValueOf<T> bare_boolean(bool T::*member) {
  Value value = *boolean(member).value;
  value.bare_flag = true;
  return {std::make_shared<const Value>(std::move(value))};
}

// The same, or left to snug: "auto".
template <class T, class E>
ValueOf<T> auto_or_boolean(E T::*member, E automatic, E on, E off) {
  return detail::bind(
      detail::auto_or_boolean_value(), member,
      [=](E& out, const std::string& text, SetContext&) -> Result<void> {
        out = text == "auto" ? automatic : SNUG_TRY(detail::parse_boolean(text, "'auto', ")) ? on : off;
        return {};
      },
      [=](E value) {
        return std::vector<std::string>{value == automatic ? "auto" : value == on ? "true" : "false"};
      });
}

// The serial number of a disk.
template <class T>
ValueOf<T> serial_number(std::string T::*member) {
  return detail::bind(
      detail::serial_value(), member,
      [](std::string& out, const std::string& text, SetContext&) -> Result<void> {
        out = SNUG_TRY(detail::parse_serial(text));
        return {};
      },
      [](const std::string& text) { return detail::one_or_none(text); });
}

// The name of a tap interface, or the descriptors of one.
template <class T>
ValueOf<T> tap_name(std::string T::*member) {
  return detail::bind(
      detail::tap_value(), member,
      [](std::string& out, const std::string& text, SetContext&) -> Result<void> {
        out = SNUG_TRY(detail::parse_tap(text));
        return {};
      },
      [](const std::string& text) { return detail::one_or_none(text); });
}

// A MAC address of one station.
template <class T>
ValueOf<T> mac_address(std::optional<MacAddress> T::*member) {
  return detail::bind(
      detail::mac_value(), member,
      [](std::optional<MacAddress>& out, const std::string& text, SetContext&) -> Result<void> {
        out = SNUG_TRY(detail::parse_mac(text));
        return {};
      },
      [](const std::optional<MacAddress>& mac) {
        return mac ? std::vector{detail::print_mac(*mac)} : std::vector<std::string>{};
      });
}

// One published port or a list of them.
template <class T>
ValueOf<T> port_list(std::vector<PortForward> T::*member, size_t max_count) {
  return detail::bind(
      detail::ports_value(), member,
      [=](std::vector<PortForward>& out, const std::string& text, SetContext&) -> Result<void> {
        const auto ports = SNUG_TRY(detail::parse_ports(text));
        if (out.size() + ports.size() > max_count) return fail("at most {} ports are allowed", max_count);
        out.insert(out.end(), ports.begin(), ports.end());
        return {};
      },
      [](const std::vector<PortForward>& ports) {
        std::vector<std::string> texts;
        for (const auto& port : ports) texts.push_back(detail::print_port(port));
        return texts;
      });
}

// A text or a list of them, each checked by itself.
template <class T>
ValueOf<T> text_list(std::vector<std::string> T::*member, size_t max_count, Value value,
                     Result<std::string> (*parse)(const std::string&)) {
  return detail::bind(
      std::move(value), member,
      [=](std::vector<std::string>& out, const std::string& text, SetContext&) -> Result<void> {
        if (out.size() >= max_count) return fail("at most {} are allowed", max_count);
        out.push_back(SNUG_TRY(parse(text)));
        return {};
      },
      [](const std::vector<std::string>& texts) { return texts; });
}

// A container image's name.
template <class T>
ValueOf<T> image_name(std::string T::*member) {
  return detail::bind(
      detail::image_value(), member,
      [](std::string& out, const std::string& text, SetContext& context) -> Result<void> {
        out = SNUG_TRY(detail::parse_image(text, context));
        return {};
      },
      [](const std::string& text) { return detail::one_or_none(text); });
}

// A text, checked.
template <class T>
ValueOf<T> checked_text(std::string T::*member, Value value,
                        Result<std::string> (*parse)(const std::string&)) {
  return detail::bind(
      std::move(value), member,
      [=](std::string& out, const std::string& text, SetContext&) -> Result<void> {
        out = SNUG_TRY(parse(text));
        return {};
      },
      [](const std::string& text) { return detail::one_or_none(text); });
}

// Bytes; `step`: what it must be a multiple of.
template <class T>
ValueOf<T> size(uint64_t T::*member, uint64_t min, uint64_t max, uint64_t step) {
  return detail::bind(
      detail::size_value(min, max), member,
      [=](uint64_t& out, const std::string& text, SetContext&) -> Result<void> {
        out = SNUG_TRY(detail::parse_size_within(text, min, max, step));
        return {};
      },
      [](uint64_t bytes) { return std::vector{format_size(bytes)}; });
}

// Bytes, or "none".
template <class T>
ValueOf<T> size_or_none(std::optional<uint64_t> T::*member, uint64_t max, uint64_t step) {
  return detail::bind(
      detail::size_or_none_value(max), member,
      [=](std::optional<uint64_t>& out, const std::string& text, SetContext&) -> Result<void> {
        out.reset();
        if (text == "none") return {};
        out = text == "0" ? 0 : SNUG_TRY(detail::parse_size_within(text, 0, max, step));
        return {};
      },
      [](const std::optional<uint64_t>& bytes) {
        return std::vector{bytes ? format_size(*bytes) : std::string("none")};
      });
}

// A duration; "none" is no limit, and so is 0 if `zero` says so.
template <class T>
ValueOf<T> time_limit(TimeLimit T::*member, Zero zero = Zero::kNoLimit) {
  return detail::bind(
      detail::limit_value(), member,
      [zero](TimeLimit& out, const std::string& text, SetContext&) -> Result<void> {
        out = SNUG_TRY(detail::parse_limit(text, zero));
        return {};
      },
      [](const TimeLimit& limit) { return std::vector{detail::print_limit(limit)}; });
}

template <class T>
ValueOf<T> path(std::string T::*member, FileUse::Kind kind) {
  return detail::bind(
      detail::path_value(false), member,
      [=](std::string& out, const std::string& text, SetContext& context) -> Result<void> {
        out = SNUG_TRY(detail::parse_path(text, kind, context));
        return {};
      },
      [](const std::string& text) { return detail::one_or_none(text); });
}

// A folder or a file of the host for the guest.
template <class T>
ValueOf<T> share_source(std::string T::*member) {
  return detail::bind(
      detail::path_value(false), member,
      [](std::string& out, const std::string& text, SetContext& context) -> Result<void> {
        out = SNUG_TRY(detail::parse_share_source(text, context));
        return {};
      },
      [](const std::string& text) { return detail::one_or_none(text); });
}

// A path, or one of kKernelImages, which stays as it is.
template <class T>
ValueOf<T> kernel_path(std::string T::*member) {
  return detail::bind(
      detail::kernel_value(), member,
      [=](std::string& out, const std::string& text, SetContext& context) -> Result<void> {
        out = SNUG_TRY(detail::parse_kernel(text, context));
        return {};
      },
      [](const std::string& text) { return detail::one_or_none(text); });
}

// One path or a list of at most `max_count`.
template <class T>
ValueOf<T> path_list(std::vector<std::string> T::*member, size_t max_count, FileUse::Kind kind) {
  return detail::bind(
      detail::path_value(true), member,
      [=](std::vector<std::string>& out, const std::string& text, SetContext& context) -> Result<void> {
        if (out.size() >= max_count) return fail("at most {} files are allowed", max_count);
        out.push_back(SNUG_TRY(detail::parse_path(text, kind, context)));
        return {};
      },
      [](const std::vector<std::string>& paths) { return paths; });
}

// A machine's name.
template <class T>
ValueOf<T> machine_name(std::string T::*member) {
  return detail::bind(
      detail::name_value(), member,
      [](std::string& out, const std::string& text, SetContext&) -> Result<void> {
        out = SNUG_TRY(detail::parse_name(text));
        return {};
      },
      [](const std::string& text) { return detail::one_or_none(text); });
}

// Words of a line, given as one text or a list; line breaks become spaces.
template <class T>
ValueOf<T> line(std::string T::*member) {
  return detail::bind(
      detail::line_value(), member,
      [](std::string& out, const std::string& text, SetContext&) { return detail::append_words(out, text); },
      [](const std::string& text) { return detail::one_or_none(text); });
}

// One of several words.
template <class T, class E>
ValueOf<T> word(E T::*member, std::vector<std::pair<std::string, E>> choices) {
  std::vector<std::string> words;
  for (const auto& [text, choice] : choices) words.push_back(text);
  return detail::bind(
      detail::word_value(words), member,
      [=](E& out, const std::string& text, SetContext&) -> Result<void> {
        out = choices[SNUG_TRY(detail::parse_word(text, words))].second;
        return {};
      },
      [=](E value) {
        for (const auto& [text, choice] : choices) {
          if (choice == value) return std::vector{text};
        }
        return std::vector<std::string>{};
      });
}

// The host's end of a virtio console.
template <class T>
ValueOf<T> port_end(PortSpec T::*member) {
  return detail::bind(
      detail::port_end_value(), member,
      [](PortSpec& out, const std::string& text, SetContext& context) -> Result<void> {
        out = SNUG_TRY(detail::parse_port_end(text, context));
        return {};
      },
      [](const PortSpec& port) { return std::vector{detail::print_port_end(port)}; });
}

template <class T>
ValueOf<T> console(ConsoleSpec T::*member) {
  return detail::bind(
      detail::console_value(), member,
      [](ConsoleSpec& out, const std::string& text, SetContext& context) -> Result<void> {
        out = SNUG_TRY(detail::parse_console(text, context));
        return {};
      },
      [](const ConsoleSpec& console) { return std::vector{detail::print_console(console)}; });
}

// Where the unix socket to the guest's sockets is.
template <class T>
ValueOf<T> vsock_socket(VsockSocket T::*member) {
  return detail::bind(
      detail::vsock_value(), member,
      [](VsockSocket& out, const std::string& text, SetContext& context) -> Result<void> {
        out = SNUG_TRY(detail::parse_vsock(text, context));
        return {};
      },
      [](const VsockSocket& socket) { return std::vector{detail::print_vsock(socket)}; });
}

}  // namespace snug
