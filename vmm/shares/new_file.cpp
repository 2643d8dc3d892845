#include "vmm/shares/new_file.h"

#include <fcntl.h>
#include <unistd.h>

#include "vmm/shares/privileges.h"

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

Outcome<Entered> NewFile::enter() {
  auto found =
      SNUG_TRY(share_->with_descriptors([this] { return share_->host.look_up(folder_->fd(), name_); }));
  return enter_found(std::move(found), -1);
}

Outcome<Entered> NewFile::enter_found(HostFiles::Found found, int opened) {
  const FileStatus status = found.status;
  const uint32_t type = wanted_.is_device() ? uint32_t{S_IFREG} : wanted_.mode & S_IFMT;
  const bool ours =
      opened >= 0 || ((status.stx_mode & S_IFMT) == type && share_->owners.is_ours(status, begun_));
  const bool is_new = opened >= 0;
  Entered entered = SNUG_TRY(snug::enter(*share_, *folder_, name_, std::move(found), is_new));
  if (!ours) return entered;
  if (is_new && (wanted_.mode & (S_ISUID | S_ISGID)) == 0) note_no_privileges(*entered.inode);
  if (S_ISLNK(wanted_.mode)) wanted_.mode = status.stx_mode;
  if (is_new && share_->owners.plain(status) == wanted_) return entered;
  const auto changed = become_wanted(entered.inode, opened, status);
  if (!changed && wanted_.is_device()) {
    ::unlinkat(folder_->fd(), name_.c_str(), 0);
    share_->inodes.forget(entered.inode.id(), 1);
    return refuse(EPERM);
  }
  if (const auto seen = see(*share_, entered.inode))
    entered.out.attr = attributes_of(*share_, seen->status, seen->look);
  return entered;
}

Outcome<> NewFile::become_wanted(const InodeRef& inode, int opened, const FileStatus& status) const {
  const Look now = opened >= 0 ? share_->owners.plain(status) : SNUG_TRY(share_->owners.look(inode, status));
  return share_->owners.change(inode, opened, status, now, wanted_);
}

// What it is noted for its user must be able to write, and the mode comes last.
uint32_t NewFile::host_mode() const {
  const uint32_t mode = wanted_.host_mode();
  if (S_ISDIR(wanted_.mode)) return mode | S_IRWXU;
  return S_ISREG(wanted_.mode) ? mode | S_IRUSR | S_IWUSR : mode;
}

}  // namespace snug
