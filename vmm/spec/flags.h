// The spec's keys as command line flags, whoever parses them. Any thread.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/spec/key.h"

namespace snug {

// What was given on the command line, as text: key ("cpus", "log.level") to values in order of appearance.
// Checked by load_spec(), together with the file, so that all problems come out at once.
struct FlagValues {
  std::map<std::string, std::vector<std::string>, std::less<>> by_key;

  // As if the key's flag had been given, once more. For positional arguments ("snug run KERNEL").
  void add(std::string_view key, std::string value) { by_key[std::string(key)].push_back(std::move(value)); }
};

// What is known of a key's flag besides the key. A flag that takes one value and is repeated: the last wins
// (wrapper scripts). Flags of list keys repeat.
struct KeyFlag {
  const Key* key;
  std::string path;  // of the key, as FlagValues has it: "log.level"
  std::string help;  // the key's, with an example and the default

  // Without a value behind it, and says 'true'.
  bool stands_alone() const { return key->value && key->value->bare_flag; }
};

// One for every key, maps opened.
std::vector<KeyFlag> spec_flags();

}  // namespace snug
