#include "vmm/spec/flags.h"

#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/CLI.hpp>
#include <algorithm>

#include "vmm/spec/given_flags.h"
#include "vmm/spec/spec.h"

namespace snug {
namespace {

std::string help_of(const Key& key, const void* defaults) {
  std::string text(key.help);
  if (!key.example.empty()) text += fmt::format(" Example: {}.", key.example);
  std::string standard(key.default_text);
  if (standard.empty() && key.value) {
    for (const auto& part : key.value->print(defaults)) standard += part;
  }
  if (!standard.empty()) text += fmt::format(" Default: {}.", standard);
  return text;
}

// "-m,--memory" has "--memory".
bool names_it(std::string_view flags, std::string_view name) {
  while (!flags.empty()) {
    const size_t end = std::min(flags.find(','), flags.size());
    if (flags.substr(0, end) == name) return true;
    flags.remove_prefix(std::min(end + 1, flags.size()));
  }
  return false;
}

// Of words of a command line those that look like flags, without values behind "=".
std::vector<std::string_view> flags_in(std::span<char* const> words) {
  std::vector<std::string_view> names;
  for (const std::string_view word : words)
    if (word.starts_with('-')) names.push_back(word.substr(0, word.find('=')));
  return names;
}

bool is_among(const Key& key, std::span<const std::string_view> names) {
  return std::ranges::any_of(names, [&](std::string_view name) { return names_it(key.flags, name); });
}

bool knows(const KeyList& keys, std::string_view name) {
  return std::ranges::any_of(keys, [&](const Key& key) {
    return names_it(key.flags, name) || (key.nested && !key.nested->is_list && knows(key.nested->keys, name));
  });
}

// `only`: flags with one of these names; nullptr: all.
void add_list(CLI::App& app, const KeyList& keys, FlagValues& values, const std::string& path,
              const void* defaults, const std::vector<std::string_view>* only = nullptr) {
  for (const auto& key : keys) {
    const std::string key_path = path.empty() ? std::string(key.name) : fmt::format("{}.{}", path, key.name);
    if (key.nested && !key.nested->is_list) {
      add_list(app, key.nested->keys, values, key_path,
               defaults != nullptr ? key.nested->item(defaults, 0) : nullptr, only);
    }
    if (key.flags.empty() || (only != nullptr && !is_among(key, *only))) continue;
    if (key.value && key.value->bare_flag) {
      // "--publish-all=false" counts as minus one.
      app.add_flag_function(
             std::string(key.flags),
             [&values, key_path](int64_t count) { values.by_key[key_path] = {count > 0 ? "true" : "false"}; },
             defaults != nullptr ? help_of(key, defaults) : std::string(key.help))
          ->group(std::string(key.group));
      continue;
    }
    auto* option = app.add_option_function<std::vector<std::string>>(
        std::string(key.flags),
        [&values, key_path](const std::vector<std::string>& given) { values.by_key[key_path] = given; },
        defaults != nullptr ? help_of(key, defaults) : std::string(key.help));
    option->type_name(std::string(key.placeholder))->group(std::string(key.group));
    // One value behind each; "--kernel a b" must leave b alone.
    option->type_size(1)->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    option->allow_extra_args(false);
  }
}

}  // namespace

void add_flags(CLI::App& app, const KeyList& keys, FlagValues& values) {
  add_list(app, keys, values, "", nullptr);
}

void add_spec_flags(CLI::App& app, FlagValues& values) {
  const Spec defaults;
  add_list(app, spec_keys(), values, "", &defaults);
}

bool add_given_spec_flags(CLI::App& app, FlagValues& values, std::span<char* const> words,
                          std::span<const std::string_view> others) {
  const std::vector<std::string_view> names = flags_in(words);
  for (const std::string_view name : names)
    if (std::ranges::find(others, name) == others.end() && !knows(spec_keys(), name)) return false;
  const Spec defaults;
  add_list(app, spec_keys(), values, "", &defaults, &names);
  return true;
}

}  // namespace snug
