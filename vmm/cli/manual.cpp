// Manual pages: prose from manual/*.roff, where lines that begin with "@" stand for what the program knows of
// itself. So no command, flag or key can be missing in them.
//
//   @command NAME     its usage, what it does, its arguments and flags
//   @other commands   those that no line has named
//   @flags of keys    the flags of `run` that are keys of a spec too
//   @keys GROUP       the keys of a group, with those of the maps in them
//   @other keys       those of groups that no line has named
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "vmm/cli/commands.h"
#include "vmm/cli/manual/pages.h"
#include "vmm/cli/put.h"
#include "vmm/cli/roff.h"
#include "vmm/spec/spec.h"
#include "vmm/spec/text.h"

namespace snug::cli {
namespace {

std::string sentence(std::string_view text) {
  std::string out = roff_text(text);
  if (!out.empty() && !out.ends_with('.')) out += '.';
  return out + "\n";
}

std::string names_of(const FlagInfo& flag) {
  std::string out;
  for (const auto& name : flag.names) out += (out.empty() ? "" : ", ") + roff_bold(name);
  return flag.placeholder.empty() ? out : out + " " + roff_italic(flag.placeholder);
}

std::string flag_entry(const FlagInfo& flag) {
  return fmt::format(".TP\n{}\n{}", names_of(flag),
                     sentence(flag.key != nullptr ? flag.key->help : flag.help));
}

std::string usage(const CommandInfo& command) {
  std::string out = "snug " + command.name;
  const bool has_flags = std::any_of(command.flags.begin(), command.flags.end(),
                                     [](const auto& flag) { return flag.names.back() != "--help"; });
  if (has_flags) out += " [FLAG...]";
  for (const auto& argument : command.arguments) {
    const std::string name = argument.name + (argument.repeats ? "..." : "");
    out += argument.required ? " " + name : " [" + name + "]";
  }
  if (command.takes_command) out += command.name == "run" ? " [-- COMMAND...]" : " -- COMMAND...";
  return out;
}

std::string command_entry(const CommandInfo& command) {
  std::string out = fmt::format(".SS {}\n{}", roff_text(usage(command)), sentence(command.about));
  for (const auto& argument : command.arguments)
    if (!argument.help.empty())
      out += fmt::format(".TP\n{}\n{}", roff_italic(argument.name), sentence(argument.help));
  for (const auto& flag : command.flags)
    if (flag.key == nullptr && flag.names.back() != "--help") out += flag_entry(flag);
  return out;
}

// What a value is, what it is when nothing is said, how the command line says it.
std::string facts(const Key& key, const void* defaults) {
  std::string out = ".br\n";
  if (key.value) {
    std::string expected = key.value->expected;
    if (key.value->repeatable && expected.find("list") == std::string::npos)
      expected += ", or a list of them";
    out += "Value: " + roff_text(expected) + ".\n";
    std::string standard(key.default_text);
    if (standard.empty() && defaults != nullptr)
      standard = fmt::format("{}", fmt::join(key.value->print(defaults), ", "));
    if (!standard.empty()) out += "Default: " + roff_text(standard) + ".\n";
  } else {
    out += key.nested->is_list ? "Value: a map of the following keys, or a list of them"
                               : "Value: a map of the following keys";
    if (const std::string& text = key.nested->short_form.expected; !text.empty())
      out += ";\na text in its place is " + roff_bold(text);
    else if (!key.nested->shorthand.empty())
      out += ";\na word in its place is the " + roff_bold(key.nested->shorthand);
    out += ".\n";
  }
  if (!key.flags.empty()) {
    std::string names;
    for (const auto& name : split(key.flags, ',')) names += (names.empty() ? "" : ", ") + roff_bold(name);
    out += "Flag: " + names + ".\n";
  }
  if (key.example.empty()) return out;
  // Several keys of a map are written like that behind the flag alone.
  const bool as_flag = key.nested && key.nested->is_list;
  const std::string said = as_flag ? long_flag(key) + " " : fmt::format("{}: ", key.name);
  return out + "Example: " + roff_bold(said + std::string(key.example)) + "\n";
}

std::string key_entry(const Key& key, const void* defaults) {
  std::string out = fmt::format(".TP\n{}{}\n{}", roff_bold(fmt::format("{}:", key.name)),
                                key.placeholder.empty() ? "" : " " + roff_italic(key.placeholder),
                                sentence(key.help) + facts(key, defaults));
  if (!key.nested) return out;
  Spec scratch;  // lists of maps are keys of the spec itself
  const void* inner = key.nested->is_list ? key.nested->open(&scratch) : key.nested->item(defaults, 0);
  out += ".RS\n";
  for (const auto& nested : key.nested->keys) out += key_entry(nested, inner);
  return out + ".RE\n";
}

// Of a map: that of what is in it.
std::string_view group_of(const Key& key) {
  return key.group.empty() && key.nested ? key.nested->keys.front().group : key.group;
}

class Page {
 public:
  explicit Page(std::span<const CommandInfo> commands) : commands_(commands) {}

  std::string expand(std::string_view text) {
    std::string out;
    while (!text.empty()) {
      const auto end = text.find('\n');
      out += line(text.substr(0, end));
      text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    }
    return out;
  }

 private:
  std::string line(std::string_view text) {
    const auto argument = [&](std::string_view directive) {
      return text.starts_with(directive) ? text.substr(directive.size()) : std::string_view{};
    };
    if (const auto name = argument("@command "); !name.empty())
      return commands([&](const auto& c) { return c.name == name; });
    if (text == "@other commands") return commands([&](const auto& c) { return !shown_.contains(c.name); });
    if (const auto group = argument("@keys "); !group.empty())
      return keys([&](const auto& key) { return group_of(key) == group; });
    if (text == "@other keys") return keys([&](const auto& key) { return !shown_.contains(key.name); });
    if (text == "@flags of keys") return flags_of_keys();
    std::string out(text);
    constexpr std::string_view kVersion = "@VERSION@";
    if (const auto at = out.find(kVersion); at != std::string::npos)
      out.replace(at, kVersion.size(), SNUG_VERSION);
    return out + "\n";
  }

  template <class Wanted>
  std::string commands(Wanted wanted) {
    std::string out;
    for (const auto& command : commands_) {
      if (!wanted(command)) continue;
      out += command_entry(command);
      shown_.emplace(command.name);
    }
    return out;
  }

  template <class Wanted>
  std::string keys(Wanted wanted) {
    const Spec defaults;
    std::string out;
    for (const auto& key : spec_keys()) {
      if (!wanted(key)) continue;
      out += key_entry(key, &defaults);
      shown_.emplace(key.name);
    }
    return out;
  }

  std::string flags_of_keys() const {
    std::string out;
    for (const auto& command : commands_)
      for (const auto& flag : command.flags)
        if (command.name == "run" && flag.key != nullptr) out += flag_entry(flag);
    return out;
  }

  std::span<const CommandInfo> commands_;
  std::set<std::string, std::less<>> shown_;
};

}  // namespace

int manual(std::string_view page, std::span<const CommandInfo> commands) {
  put("{}", Page(commands).expand(page == "snug.yaml" ? kSnugYamlPage : kSnugPage));
  return 0;
}

}  // namespace snug::cli
