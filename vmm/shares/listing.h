// FUSE_READDIR and FUSE_READDIRPLUS. Any thread; one at a time for each open folder.
#pragma once

#include "vmm/shares/request.h"
#include "vmm/shares/share.h"

namespace snug {

enum class Listing { kNames, kWithAttributes };

// Entries from in.offset on, as many as there is room for. With attributes, each that is answered is one
// lookup that the guest has, but for "." and "..".
Outcome<> list(Share& share, Handle& handle, const fuse_read_in& in, Reply& reply, Listing listing);

}  // namespace snug
