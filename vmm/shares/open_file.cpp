#include "vmm/shares/open_file.h"

#include <fcntl.h>

#include "vmm/shares/privileges.h"

namespace snug {
namespace {

// Changes of one tick of the clock look like one.
constexpr uint64_t kTick = 20'000'000;

// Whether the inode is as it was when it was opened last, so that what the guest has of it holds.
bool is_as_before(const Share& share, const InodeRef& inode) {
  const auto status = share.host.status(inode.fd());
  if (!status) return false;
  const uint64_t changed = nanoseconds(status->stx_ctime) ^ nanoseconds(status->stx_mtime) << 20;
  const bool settled = nanoseconds(status->stx_ctime) + kTick < Owners::now();
  return inode->opened_as_of.exchange(settled ? changed : 0, std::memory_order_relaxed) == changed;
}

uint32_t open_flags(const Share& share, const InodeRef& inode, Made made) {
  switch (share.options.cache) {
    case ShareCache::kAlways:
      return FOPEN_KEEP_CACHE | (inode.is_folder() ? FOPEN_CACHE_DIR : 0);
    case ShareCache::kNone:
      return inode.is_folder() ? 0 : FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
    case ShareCache::kAuto:
      break;
  }
  // Of a new file the guest has nothing yet.
  if (made == Made::kNow || inode.is_folder()) return 0;
  return is_as_before(share, inode) ? FOPEN_KEEP_CACHE : 0;
}

Outcome<Opened> add(Share& share, DescriptorBudget::Share reserved, InodeRef inode, UniqueFd fd, Made made) {
  fuse_open_out out{};
  out.open_flags = open_flags(share, inode, made);
  out.fh = SNUG_TRY(share.handles.add(std::move(reserved), std::move(inode), std::move(fd)));
  return Opened{out};
}

}  // namespace

int host_flags(const Share& share, uint32_t guest_flags) {
  int access = static_cast<int>(guest_flags) & O_ACCMODE;
  // A guest that writes back reads what is around it first.
  if (share.agreed.has(FUSE_WRITEBACK_CACHE) && access == O_WRONLY) access = O_RDWR;
  return access | (static_cast<int>(guest_flags) & (O_TRUNC | O_SYNC | O_DSYNC));
}

Outcome<Opened> open_inode(Share& share, const InodeRef& inode, uint32_t guest_flags, uint32_t fuse_flags) {
  if (inode.is_folder()) return refuse(EISDIR);
  if (!inode.is_file()) return refuse(S_ISLNK(inode->type) ? ELOOP : ENXIO);
  if (inode->is_device) return refuse(ENXIO);
  const int access = static_cast<int>(guest_flags) & O_ACCMODE;
  const bool truncates = (guest_flags & O_TRUNC) != 0;
  if (access == O_ACCMODE) return refuse(EINVAL);
  if (share.options.readonly && (access != O_RDONLY || truncates)) return refuse(EROFS);
  const int flags = host_flags(share, guest_flags);
  auto reserved = SNUG_TRY(share.handles.reserve());
  auto fd = share.with_descriptors([&] { return share.host.reopen(inode.fd(), flags); });
  if (!fd && fd.error() == EACCES && (flags & O_ACCMODE) != access)
    fd = share.host.reopen(inode.fd(), (flags & ~O_ACCMODE) | access);
  if (!fd) return refuse(fd.error());
  if (truncates) drop_privileges(share, inode, -1, (fuse_flags & FUSE_OPEN_KILL_SUIDGID) != 0);
  Opened opened = SNUG_TRY(keep_open(share, inode, std::move(reserved), std::move(*fd)));
  // What is closed has nothing to say but that a process's locks are gone: its last closing says so as well.
  if (access == O_RDONLY && !share.locks.in_use()) opened.out.open_flags |= FOPEN_NOFLUSH;
  return opened;
}

Outcome<Opened> open_folder(Share& share, const InodeRef& inode) {
  if (!inode.is_folder()) return refuse(ENOTDIR);
  auto reserved = SNUG_TRY(share.handles.reserve());
  if (share.is_made_up(inode)) return keep_open(share, inode, std::move(reserved), {});
  auto fd =
      SNUG_TRY(share.with_descriptors([&] { return share.host.reopen(inode.fd(), O_RDONLY | O_DIRECTORY); }));
  return keep_open(share, inode, std::move(reserved), std::move(fd));
}

Outcome<UniqueFd> open_for_xattrs(Share& share, const InodeRef& inode) {
  if (!inode.is_file() && !inode.is_folder()) return refuse(EOPNOTSUPP);
  return share.with_descriptors([&] {
    auto fd = share.host.reopen(inode.fd(), O_RDONLY);
    // Which way it is open means nothing to its attributes.
    if (!fd && fd.error() == EACCES && inode.is_file() && !share.options.readonly)
      fd = share.host.reopen(inode.fd(), O_WRONLY);
    return fd;
  });
}

Outcome<Opened> keep_open(Share& share, const InodeRef& inode, DescriptorBudget::Share reserved, UniqueFd fd,
                          Made made) {
  // Another hold on an inode that is held.
  auto again = SNUG_TRY(share.inodes.find(inode.id()));
  return add(share, std::move(reserved), std::move(again), std::move(fd), made);
}

}  // namespace snug
