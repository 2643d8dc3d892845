// Names that a guest sends. Any thread.
#pragma once

#include <string_view>

#include "vmm/shares/outcome.h"

namespace snug {

// Whether it is the name of one entry of a folder: no '/', not "", "." or "..", no NUL (EINVAL), at most 255
// bytes (ENAMETOOLONG).
Outcome<> check_name(std::string_view name);

}  // namespace snug
