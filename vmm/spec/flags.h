// The spec's keys as command line flags.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/spec/key.h"

namespace CLI {
class App;
}

namespace snug {

// What was given on the command line, as text: key ("cpus", "log.level") to values in order of appearance.
// Checked by load_spec(), together with the file, so that all problems come out at once.
struct FlagValues {
  std::map<std::string, std::vector<std::string>, std::less<>> by_key;

  // As if the key's flag had been given, once more. For positional arguments ("snug run KERNEL").
  void add(std::string_view key, std::string value) { by_key[std::string(key)].push_back(std::move(value)); }
};

// Adds a flag for every key, in help groups. `values` must outlive the parsing. A flag that takes one value
// and is repeated: the last wins (wrapper scripts). Flags of list keys repeat.
void add_spec_flags(CLI::App& app, FlagValues& values);

// The same for any table of keys.
void add_flags(CLI::App& app, const KeyList& keys, FlagValues& values);

}  // namespace snug
