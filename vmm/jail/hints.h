// What a person can do about a step that the host refuses. Reads /proc/sys where there still is one.
#pragma once

#include <string>

namespace snug::jail {

// Namespaces could not be made: `error` is clone's or unshare's.
std::string hint_for_namespaces(int error);
// There is a user namespace, and yet its owner may not do what it takes.
std::string hint_inside_namespaces(int error);
// landlock_version() is -1.
std::string hint_for_landlock(int error);

}  // namespace snug::jail
