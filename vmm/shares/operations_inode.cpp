// What there is, and what it looks like.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <climits>

#include "vmm/shares/attributes.h"
#include "vmm/shares/operations.h"
#include "vmm/shares/privileges.h"

namespace snug::operations {
namespace {

timespec time_of(uint32_t valid, uint32_t set, uint32_t now, uint64_t seconds, uint32_t nanoseconds) {
  if ((valid & now) != 0) return {0, UTIME_NOW};
  if ((valid & set) == 0) return {0, UTIME_OMIT};
  return {static_cast<time_t>(seconds), static_cast<long>(std::min(nanoseconds, 999'999'999u))};
}

Outcome<> set_times(const InodeRef& inode, const fuse_setattr_in& in) {
  const uint32_t valid = in.valid;
  if ((valid & (FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW)) == 0) return {};
  const std::array<timespec, 2> times = {
      time_of(valid, FATTR_ATIME, FATTR_ATIME_NOW, in.atime, in.atimensec),
      time_of(valid, FATTR_MTIME, FATTR_MTIME_NOW, in.mtime, in.mtimensec)};
  return outcome_of(::utimensat(inode.fd(), "", times.data(), AT_EMPTY_PATH));
}

Outcome<> set_size(Share& share, const InodeRef& inode, const fuse_setattr_in& in) {
  if (!inode.is_file()) return refuse(inode.is_folder() ? EISDIR : EINVAL);
  if (in.size > INT64_MAX) return refuse(EFBIG);
  if ((in.valid & FATTR_FH) != 0) {
    const auto handle = SNUG_TRY(share.handles.find(in.fh, inode.id()));
    SNUG_TRY(outcome_of(::ftruncate(handle->fd.get(), static_cast<off_t>(in.size))));
  } else {
    const auto opened = SNUG_TRY(share.host.reopen(inode.fd(), O_WRONLY));
    SNUG_TRY(outcome_of(::ftruncate(opened.get(), static_cast<off_t>(in.size))));
  }
  drop_privileges(share, inode, -1, (in.valid & FATTR_KILL_SUIDGID) != 0);
  return {};
}

// Owner, group and mode, of which the type stays.
Outcome<> set_look(Share& share, const InodeRef& inode, const fuse_setattr_in& in) {
  if ((in.valid & (FATTR_MODE | FATTR_UID | FATTR_GID)) == 0) return {};
  const Seen seen = SNUG_TRY(see(share, inode));
  Look wanted = seen.look;
  if ((in.valid & FATTR_UID) != 0) wanted.uid = in.uid;
  if ((in.valid & FATTR_GID) != 0) wanted.gid = in.gid;
  if ((in.valid & FATTR_MODE) != 0)
    wanted.mode = (wanted.mode & S_IFMT) | (in.mode & 07777);
  else if (!S_ISDIR(wanted.mode))
    wanted.mode = without_privileges(wanted.mode);
  if ((in.valid & (FATTR_UID | FATTR_GID)) != 0) drop_privileges(share, inode, -1, false);
  SNUG_TRY(share.owners.change(inode, -1, seen.status, seen.look, wanted));
  // That nothing is new is a change all the same.
  const Look& look = seen.look;
  if (wanted.mode == look.mode && wanted.uid == look.uid && wanted.gid == look.gid)
    (void)::fchownat(inode.fd(), "", uid_t(-1), gid_t(-1), AT_EMPTY_PATH);
  return {};
}

}  // namespace

Outcome<> lookup(Share& share, Request& request, Reply& reply) {
  const auto name = SNUG_TRY(request.take_name());
  const auto folder = SNUG_TRY(share.inodes.find(request.header().nodeid));
  const auto entered = look_up(share, folder, name);
  if (!entered) {
    if (entered.error() != ENOENT || share.options.cache == ShareCache::kNone) return refuse(entered.error());
    // The guest may remember that it is not there: for long where nobody else makes it, elsewhere for as long
    // as a compiler goes through its folders.
    fuse_entry_out none{};
    if (share.options.cache == ShareCache::kAlways)
      none.entry_valid = share.validity();
    else
      none.entry_valid_nsec = kMoment;
    reply.put(none);
    return {};
  }
  reply.put(entered->out);
  return {};
}

Outcome<> getattr(Share& share, Request& request, Reply& reply) {
  const auto inode = SNUG_TRY(share.inodes.find(request.header().nodeid));
  put_attributes(share, reply, SNUG_TRY(see(share, inode)));
  return {};
}

Outcome<> setattr(Share& share, Request& request, Reply& reply) {
  const auto in = SNUG_TRY(request.take<fuse_setattr_in>());
  const auto inode = SNUG_TRY(share.inodes.find(request.header().nodeid));
  const auto set = set_look(share, inode, in);
  if (inode.is_folder()) inode->hands_nothing_down.ends();
  if (!set) return set;
  if ((in.valid & FATTR_SIZE) != 0) SNUG_TRY(set_size(share, inode, in));
  SNUG_TRY(set_times(inode, in));
  put_attributes(share, reply, SNUG_TRY(see(share, inode)));
  return {};
}

Outcome<> readlink(Share& share, Request& request, Reply& reply) {
  const auto inode = SNUG_TRY(share.inodes.find(request.header().nodeid));
  if (!S_ISLNK(inode->type)) return refuse(EINVAL);
  std::array<char, PATH_MAX> target;
  const ssize_t length = ::readlinkat(inode.fd(), "", target.data(), target.size());
  if (length < 0) return refuse(errno);
  const auto bytes = std::as_bytes(std::span(target)).first(static_cast<size_t>(length));
  if (bytes.size() > reply.room()) return refuse(ENAMETOOLONG);
  reply.put_bytes(bytes);
  return {};
}

// Guests with default_permissions, as all with virtio-fs are, never ask.
Outcome<> access(Share& share, Request& request, Reply&) {
  const auto in = SNUG_TRY(request.take<fuse_access_in>());
  const auto inode = SNUG_TRY(share.inodes.find(request.header().nodeid));
  const Look look = SNUG_TRY(see(share, inode)).look;
  const uint32_t mask = in.mask & (R_OK | W_OK | X_OK);
  if ((mask & W_OK) != 0 && share.options.readonly) return refuse(EROFS);
  uint32_t granted = look.mode & 7;
  if (request.header().uid == look.uid)
    granted = look.mode >> 6 & 7;
  else if (request.header().gid == look.gid)
    granted = look.mode >> 3 & 7;
  if (request.header().uid == 0) granted = R_OK | W_OK | ((look.mode & 0111) != 0 ? X_OK : 0);
  if (request.header().uid == 0 && S_ISDIR(look.mode)) granted = 7;
  return (mask & ~granted) == 0 ? Outcome<>{} : refuse(EACCES);
}

}  // namespace snug::operations
