// Capabilities of the calling thread (capabilities(7)). Any thread; no library, for it takes three calls.
#pragma once

#include <initializer_list>

namespace snug::jail {

// Whether it is among the effective ones.
bool has_capability(int capability);

// Gives up the bounding set, and locks the bits that make user 0 special (which also keeps capabilities
// across a change of user, until drop_capabilities()). Needs CAP_SETPCAP. 0 or an errno.
int lock_capabilities();

// Empties the effective, permitted, inheritable and ambient sets. 0 or an errno.
int drop_capabilities();

// The same but for these, of which it keeps what it has, permitted and effective. 0 or an errno.
int keep_capabilities(std::initializer_list<int> kept);

}  // namespace snug::jail
