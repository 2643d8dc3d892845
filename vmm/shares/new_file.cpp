#include "vmm/shares/new_file.h"

#include <fcntl.h>
#include <unistd.h>

#include "vmm/shares/open_file.h"
#include "vmm/shares/privileges.h"

namespace snug {

Outcome<NewFile> NewFile::in(Share& share, const InodeRef& folder, std::string_view name,
                             const fuse_in_header& caller, uint32_t type_and_mode, uint32_t umask,
                             uint32_t device) {
  if (!folder.is_folder()) return refuse(ENOTDIR);
  NewFile file(share, folder, name);
  Look& wanted = file.wanted_;
  wanted = {.mode = type_and_mode & (S_IFMT | 07777), .uid = caller.uid, .gid = caller.gid, .device = device};
  file.begun_ = Owners::now();
  const uint64_t now = Recent::now();
  if (folder->hands_nothing_down.holds(now)) {
    file.mask(umask);
    return file;
  }
  const uint64_t begun = folder->hands_nothing_down.begin();
  const Seen seen = SNUG_TRY(see(share, folder));
  const bool has_group = (seen.look.mode & S_ISGID) != 0;
  if (has_group) file.take_group(seen.look, caller);
  const auto acl = SNUG_TRY(default_acl(share, folder, seen.status));
  if (acl)
    file.inherit(*acl);
  else
    file.mask(umask);
  if (!has_group && !acl) folder->hands_nothing_down.found(begun, now + moment_of(share.options));
  return file;
}

void NewFile::take_group(const Look& folder, const fuse_in_header& caller) {
  wanted_.gid = folder.gid;
  if (S_ISDIR(wanted_.mode)) {
    wanted_.mode |= S_ISGID;
  } else if (share_->agreed.minor < fuse::kStripsSetgid && caller.uid != 0 && caller.gid != folder.gid &&
             (wanted_.mode & S_IXGRP) != 0) {
    wanted_.mode &= ~uint32_t{S_ISGID};
  }
}

void NewFile::mask(uint32_t umask) {
  if (share_->agreed.has(FUSE_DONT_MASK) && !S_ISLNK(wanted_.mode)) wanted_.mode &= ~(umask & 0777);
}

// As Linux does it, instead of the umask.
void NewFile::inherit(const PosixAcl& from_folder) {
  if (S_ISLNK(wanted_.mode)) return;
  PosixAcl access = from_folder;
  access.inherit(wanted_.mode);
  // What can have no list of its own gives no more than that would.
  if (!S_ISREG(wanted_.mode) && !S_ISDIR(wanted_.mode)) {
    wanted_.mode &= ~uint32_t{S_IRWXG} | access.group_rights() << 3;
    return;
  }
  if (share_->owners.real_ids()) return;
  if (access.is_more_than_mode()) {
    wanted_.group_rights = access.group_rights();
    access_ = std::move(access);
  }
  if (S_ISDIR(wanted_.mode)) default_ = from_folder;
}

Outcome<> NewFile::note_acls(const InodeRef& inode, int opened) const {
  if (!access_ && !default_) return {};
  UniqueFd own;
  if (opened < 0) {
    own = SNUG_TRY(open_for_xattrs(*share_, inode));
    opened = own.get();
  }
  if (access_) SNUG_TRY(note_acl(opened, kAccessAcl, *access_));
  return default_ ? note_acl(opened, kDefaultAcl, *default_) : Outcome<>{};
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
  if (is_new) note_all_plain(*entered.inode);
  if (S_ISLNK(wanted_.mode)) wanted_.mode = status.stx_mode;
  if (is_new && share_->owners.plain(status) == wanted_) return entered;
  const auto changed = become_wanted(entered.inode, opened, status);
  entered.inode->hands_nothing_down.ends();
  if (!changed && wanted_.is_device()) {
    ::unlinkat(folder_->fd(), name_.c_str(), 0);
    share_->inodes.forget(entered.inode.id(), 1);
    return refuse(EPERM);
  }
  if (const auto seen = see(*share_, entered.inode))
    entered.out.attr = attributes_of(*share_, seen->status, seen->look);
  return entered;
}

// Nothing is noted of what was made this moment, and it has no capabilities.
void NewFile::note_all_plain(Inode& inode) const {
  share_->owners.note_new(inode);
  inode.no_capability.found(inode.no_capability.begin(), Recent::now() + moment_of(share_->options));
}

Outcome<> NewFile::become_wanted(const InodeRef& inode, int opened, const FileStatus& status) const {
  const Look now = opened >= 0 ? share_->owners.plain(status) : SNUG_TRY(share_->owners.look(inode, status));
  SNUG_TRY(note_acls(inode, opened));
  return share_->owners.change(inode, opened, status, now, wanted_);
}

// What it is noted for its user must be able to write, and the mode comes last.
uint32_t NewFile::host_mode() const {
  const uint32_t mode = wanted_.host_mode();
  if (S_ISDIR(wanted_.mode)) return mode | S_IRWXU;
  return S_ISREG(wanted_.mode) ? mode | S_IRUSR | S_IWUSR : mode;
}

}  // namespace snug
