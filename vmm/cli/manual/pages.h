// The prose of the manual pages; ../manual.cpp says what their lines mean.
#pragma once

#include <string_view>

namespace snug::cli {

extern const std::string_view kSnugPage;
extern const std::string_view kSnugYamlPage;

}  // namespace snug::cli
