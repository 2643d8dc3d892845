#include "vmm/shares/new_file.h"

#include <fcntl.h>
#include <unistd.h>

namespace snug {

Outcome<NewFile> NewFile::in(Share& share, const InodeRef& folder, std::string_view name,
                             const fuse_in_header& caller, uint32_t type_and_mode, uint32_t device) {
  if (!folder.is_folder()) return refuse(ENOTDIR);
  const Look parent = SNUG_TRY(see(share, folder)).look;
  NewFile file(share, folder, name);
  Look& wanted = file.wanted_;
  wanted = {.mode = type_and_mode & (S_IFMT | 07777), .uid = caller.uid, .gid = caller.gid, .device = device};
  if ((parent.mode & S_ISGID) != 0) {
    wanted.gid = parent.gid;
    if (S_ISDIR(wanted.mode)) {
      wanted.mode |= S_ISGID;
    } else if (share.agreed.minor < fuse::kStripsSetgid && caller.uid != 0 && caller.gid != parent.gid &&
               (wanted.mode & S_IXGRP) != 0) {
      wanted.mode &= ~uint32_t{S_ISGID};
    }
  }
  file.begun_ = Owners::now();
  return file;
}

Outcome<Entered> NewFile::enter(int opened) {
  auto found =
      SNUG_TRY(share_->with_descriptors([this] { return share_->host.look_up(folder_->fd(), name_); }));
  return enter_found(std::move(found), opened);
}

Outcome<Entered> NewFile::enter_found(HostFiles::Found found, int opened) {
  const FileStatus status = found.status;
  const uint32_t type = wanted_.is_device() ? uint32_t{S_IFREG} : wanted_.mode & S_IFMT;
  const bool ours = (status.stx_mode & S_IFMT) == type && share_->owners.is_ours(status, begun_);
  Entered entered = SNUG_TRY(snug::enter(*share_, *folder_, name_, std::move(found)));
  if (!ours) return entered;
  if (S_ISLNK(wanted_.mode)) wanted_.mode = status.stx_mode;
  const Look now = share_->owners.look(entered.inode, status);
  const auto changed = share_->owners.change(entered.inode, opened, status, now, wanted_);
  if (!changed && wanted_.is_device()) {
    ::unlinkat(folder_->fd(), name_.c_str(), 0);
    share_->inodes.forget(entered.inode.id(), 1);
    return refuse(EPERM);
  }
  const Seen seen = SNUG_TRY(see(*share_, entered.inode));
  entered.out.attr = attributes_of(*share_, seen.status, seen.look);
  return entered;
}

}  // namespace snug
