// Capabilities of the calling thread (capabilities(7)). Any thread; no library, for it takes three calls.
#pragma once

namespace snug::jail {

// Whether it is among the effective ones.
bool has_capability(int capability);

// Gives up the bounding set, and locks the bits that make user 0 special (which also keeps capabilities
// across a change of user, until drop_capabilities()). Needs CAP_SETPCAP. 0 or an errno.
int lock_capabilities();

// Empties the effective, permitted, inheritable and ambient sets. 0 or an errno.
int drop_capabilities();

}  // namespace snug::jail
