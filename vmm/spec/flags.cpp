#include "vmm/spec/flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

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
void collect(const KeyList& keys, const std::string& path, const void* defaults,
             const std::vector<std::string_view>* only, std::vector<KeyFlag>& out) {
  for (const auto& key : keys) {
    std::string key_path = path.empty() ? std::string(key.name) : fmt::format("{}.{}", path, key.name);
    if (key.nested && !key.nested->is_list)
      collect(key.nested->keys, key_path, key.nested->item(defaults, 0), only, out);
    if (key.flags.empty() || (only != nullptr && !is_among(key, *only))) continue;
    out.push_back({&key, std::move(key_path), help_of(key, defaults)});
  }
}

}  // namespace

std::vector<KeyFlag> spec_flags() {
  const Spec defaults;
  std::vector<KeyFlag> flags;
  collect(spec_keys(), "", &defaults, nullptr, flags);
  return flags;
}

std::optional<std::vector<KeyFlag>> given_spec_flags(std::span<char* const> words,
                                                     std::span<const std::string_view> others) {
  const std::vector<std::string_view> names = flags_in(words);
  for (const std::string_view name : names)
    if (std::ranges::find(others, name) == others.end() && !knows(spec_keys(), name)) return std::nullopt;
  const Spec defaults;
  std::vector<KeyFlag> flags;
  collect(spec_keys(), "", &defaults, &names, flags);
  return flags;
}

}  // namespace snug
