// Opening what the guest knows. Any thread.
#pragma once

#include "vmm/shares/share.h"

namespace snug {

struct Opened {
  fuse_open_out out;
};

// What an open(2) of the guest is on the host: the access mode, whether to write through, O_TRUNC. Appending
// and direct access are told with each request.
int host_flags(const Share& share, uint32_t guest_flags);

// Opens a regular file. EROFS, EISDIR, ELOOP (links, and whatever else is not to be opened here).
Outcome<Opened> open_inode(Share& share, const InodeRef& inode, uint32_t guest_flags, uint32_t fuse_flags);
Outcome<Opened> open_folder(Share& share, const InodeRef& inode);
// What has attributes, a file or a folder, open for them. EOPNOTSUPP: anything else.
Outcome<UniqueFd> open_for_xattrs(Share& share, const InodeRef& inode);
// A regular file that is open already, with room that was reserved before.
enum class Made : uint8_t { kBefore, kNow };
Outcome<Opened> keep_open(Share& share, const InodeRef& inode, DescriptorBudget::Share reserved, UniqueFd fd,
                          Made made = Made::kBefore);

}  // namespace snug
