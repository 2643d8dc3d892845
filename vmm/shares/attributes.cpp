#include "vmm/shares/attributes.h"

#include <fcntl.h>

#include "vmm/shares/privileges.h"

namespace snug {

fuse_attr attributes_of(const Share& share, const FileStatus& status, const Look& look) {
  fuse_attr attr{};
  attr.ino = share.number(device_of(status), status.stx_ino);
  attr.size = status.stx_size;
  attr.blocks = status.stx_blocks;
  attr.atime = static_cast<uint64_t>(status.stx_atime.tv_sec);
  attr.mtime = static_cast<uint64_t>(status.stx_mtime.tv_sec);
  attr.ctime = static_cast<uint64_t>(status.stx_ctime.tv_sec);
  attr.atimensec = status.stx_atime.tv_nsec;
  attr.mtimensec = status.stx_mtime.tv_nsec;
  attr.ctimensec = status.stx_ctime.tv_nsec;
  attr.mode = look.mode;
  attr.nlink = status.stx_nlink;
  attr.uid = look.uid;
  attr.gid = look.gid;
  attr.rdev = look.device;
  attr.blksize = status.stx_blksize;
  return attr;
}

Outcome<Seen> seen_as(const Share& share, const InodeRef& inode, const FileStatus& status) {
  Seen seen{status, SNUG_TRY(share.owners.look(inode, status))};
  if (inode.is_file() && (seen.look.mode & (S_ISUID | S_ISGID)) != 0) note_privileges(*inode);
  return seen;
}

Outcome<Seen> see(const Share& share, const InodeRef& inode) {
  if (share.is_made_up(inode)) return Seen{share.root_status, {.mode = share.root_status.stx_mode}};
  const FileStatus status = SNUG_TRY(share.host.status(inode.fd()));
  return seen_as(share, inode, status);
}

void put_attributes(const Share& share, Reply& reply, const Seen& seen) {
  fuse_attr_out out{};
  out.attr_valid = share.validity();
  out.attr = attributes_of(share, seen.status, seen.look);
  reply.put(out);
}

Outcome<Entered> enter(Share& share, const InodeRef& folder, std::string_view name, HostFiles::Found found,
                       bool is_new) {
  const FileStatus status = found.status;
  Entered entered{SNUG_TRY(share.inodes.enter(folder.id(), name, std::move(found))), {}};
  const auto seen = share.with_descriptors([&]() -> Outcome<Seen> {
    if (is_new) return Seen{status, share.owners.plain(status)};
    return seen_as(share, entered.inode, status);
  });
  if (!seen) {
    share.inodes.forget(entered.inode.id(), 1);
    return refuse(seen.error());
  }
  fuse_entry_out& out = entered.out;
  out.nodeid = entered.inode.id();
  out.entry_valid = out.attr_valid = share.validity();
  out.attr = attributes_of(share, status, seen->look);
  const bool elsewhere = device_of(status) != folder->device || status.stx_mnt_id != folder->mount;
  if (elsewhere && S_ISDIR(status.stx_mode) && share.agreed.has(FUSE_SUBMOUNTS))
    out.attr.flags |= FUSE_ATTR_SUBMOUNT;
  return entered;
}

Outcome<HostFiles::Found> find_name(Share& share, const InodeRef& folder, const std::string& name) {
  if (!share.is_made_up(folder))
    return share.with_descriptors([&] { return share.host.look_up(folder.fd(), name); });
  if (name != share.options.file_name) return refuse(ENOENT);
  HostFiles::Found found{SNUG_TRY(share.host.reopen(share.root.get(), O_PATH)), {}};
  found.status = SNUG_TRY(share.host.status(found.fd.get()));
  return found;
}

Outcome<Entered> look_up(Share& share, const InodeRef& folder, std::string_view name) {
  if (!folder.is_folder()) return refuse(ENOTDIR);
  auto found = SNUG_TRY(find_name(share, folder, std::string(name)));
  return enter(share, folder, name, std::move(found));
}

}  // namespace snug
