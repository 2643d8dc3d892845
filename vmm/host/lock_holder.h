// Who keeps a file locked, for a message. Thread: any.
#pragma once

#include <string>

namespace snug {

// "snug run web.yaml (process 123)": a process of this user's that has the file behind `fd` open and an open
// file description lock on it; this process itself is named as such; "" when none is to be seen. The kernel
// itself does not say who holds such a lock.
std::string lock_holder(int fd);

}  // namespace snug
