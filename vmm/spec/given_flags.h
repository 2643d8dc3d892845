// Flags for those keys of the spec alone that a command line names: all of them cost time.
#pragma once

#include <span>
#include <string_view>

#include "vmm/spec/flags.h"

namespace snug {

// As add_spec_flags(), for what `words` of a command line have. False, and none is added: one of the words
// may be another flag than these and `others`, or a mistake, and whoever explains it needs all of them.
bool add_given_spec_flags(CLI::App& app, FlagValues& values, std::span<char* const> words,
                          std::span<const std::string_view> others);

}  // namespace snug
