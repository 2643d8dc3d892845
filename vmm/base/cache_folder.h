// Where this user's caches and data lie (XDG Base Directory Specification). Before other threads exist.
#pragma once

#include <string>

namespace snug {

// ${XDG_CACHE_HOME:-~/.cache}/snug, whether it is there or not; "" when neither variable is an absolute path.
std::string cache_folder();

// ${XDG_DATA_HOME:-~/.local/share}/snug, likewise: what is not to be lost.
std::string data_folder();

// Whether somebody else owns what is at `path`, or the nearest folder above it when nothing is: what we made
// there would be in that user's way (root with another user's environment: su, sudo -E). A folder of root's
// that everybody may write to is nobody's.
bool belongs_to_another(const std::string& path);

}  // namespace snug
