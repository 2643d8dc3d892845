// Setuid and setgid bits and capabilities of files end when somebody else writes (FUSE_HANDLE_KILLPRIV_V2).
// Whether an inode has any is remembered, so that not every write looks for them.
//
// Thread: any number at a time.
#pragma once

#include "vmm/shares/share.h"

namespace snug {

enum class Privileges : uint8_t { kUnknown, kNone, kSome };

// It has, or may have from now on.
void note_privileges(Inode& inode);
// It has been made this moment, and has none.
void note_no_privileges(Inode& inode);
// Data of a file changes: capabilities go, and with `bits` setuid and setgid too. `opened`: a descriptor of
// it for more than its path, or -1.
void drop_privileges(const Share& share, const InodeRef& inode, int opened, bool bits);
// The mode without the bits that such a change ends.
uint32_t without_privileges(uint32_t mode);

}  // namespace snug
