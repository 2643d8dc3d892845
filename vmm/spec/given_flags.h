// Flags for those keys of the spec alone that a command line names: all of them cost time.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "vmm/spec/flags.h"

namespace snug {

// As spec_flags(), for what `words` of a command line have. Nothing: one of the words may be another flag
// than these and `others`, or a mistake, and whoever explains it needs all of them.
std::optional<std::vector<KeyFlag>> given_spec_flags(std::span<char* const> words,
                                                     std::span<const std::string_view> others);

}  // namespace snug
