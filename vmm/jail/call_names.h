// The names of system calls, for messages.
#pragma once

#include <cstddef>

namespace snug::jail {

// How many numbers the headers know that this was compiled with.
size_t call_count();
// "openat"; "" for a number without a name. Async-signal-safe.
const char* call_name(long number);

}  // namespace snug::jail
