// Where this user's caches lie (XDG Base Directory Specification). Before other threads exist.
#pragma once

#include <string>

namespace snug {

// ${XDG_CACHE_HOME:-~/.cache}/snug, whether it is there or not; "" when neither variable is an absolute path.
std::string cache_folder();

}  // namespace snug
