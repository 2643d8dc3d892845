#include "vmm/shares/privileges.h"

#include <fcntl.h>
#include <sys/xattr.h>

#include "vmm/shares/attributes.h"
#include "vmm/shares/xattr_names.h"

namespace snug {

void note_privileges(Inode& inode) {
  inode.privileges.store(static_cast<uint8_t>(Privileges::kSome), std::memory_order_relaxed);
}

void note_no_privileges(Inode& inode) {
  auto unknown = static_cast<uint8_t>(Privileges::kUnknown);
  inode.privileges.compare_exchange_strong(unknown, static_cast<uint8_t>(Privileges::kNone),
                                           std::memory_order_relaxed);
}

// Setgid without the right to execute once meant mandatory locks, and stays.
uint32_t without_privileges(uint32_t mode) {
  mode &= ~uint32_t{S_ISUID};
  return (mode & S_IXGRP) != 0 ? mode & ~uint32_t{S_ISGID} : mode;
}

void drop_privileges(const Share& share, const InodeRef& inode, int opened, bool bits) {
  if (!inode.is_file() ||
      inode->privileges.load(std::memory_order_relaxed) == static_cast<uint8_t>(Privileges::kNone))
    return;
  UniqueFd own;
  if (opened < 0) {
    auto reopened = share.host.reopen(inode.fd(), O_RDONLY);
    if (!reopened) return;
    own = std::move(*reopened);
    opened = own.get();
  }
  ::fremovexattr(opened, kCapabilityOnHost);
  const auto seen = see(share, inode);
  if (!seen) return;
  const uint32_t mode = without_privileges(seen->look.mode);
  if (bits && mode != seen->look.mode) {
    Look wanted = seen->look;
    wanted.mode = mode;
    if (!share.owners.change(inode, opened, seen->status, seen->look, wanted)) return;
  } else if (mode != seen->look.mode) {
    return;
  }
  inode->privileges.store(static_cast<uint8_t>(Privileges::kNone), std::memory_order_relaxed);
}

}  // namespace snug
