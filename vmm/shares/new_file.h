// Files that the guest makes: whose they are, and how they get to be it. Nothing is given away by name: what
// has been made is looked at through a descriptor first.
//
// Thread: any number at a time.
#pragma once

#include <optional>
#include <string>

#include "vmm/shares/acls.h"
#include "vmm/shares/attributes.h"
#include "vmm/shares/share.h"

namespace snug {

class NewFile {
 public:
  // `type_and_mode` as the guest wants it; its caller's umask counts where the folder has no default access
  // control list, and the guest has left it to us. EEXIST and the like come later.
  static Outcome<NewFile> in(Share& share, const InodeRef& folder, std::string_view name,
                             const fuse_in_header& caller, uint32_t type_and_mode, uint32_t umask,
                             uint32_t device = 0);

  const std::string& name() const { return name_; }
  uint32_t host_mode() const;
  // After it has been made: finds it, makes it the caller's, if it is what was made, and known to the guest.
  // On a file system that keeps no owners it is made all the same. EPERM: a device node there; the name is
  // gone again.
  Outcome<Entered> enter();
  // The same of what `opened` made.
  Outcome<Entered> enter_found(HostFiles::Found found, int opened);

 private:
  NewFile(Share& share, const InodeRef& folder, std::string_view name)
      : share_(&share), folder_(&folder), name_(name) {}
  void take_group(const Look& folder, const fuse_in_header& caller);
  void mask(uint32_t umask);
  void inherit(const PosixAcl& from_folder);
  void note_all_plain(Inode& inode) const;
  Outcome<> note_acls(const InodeRef& inode, int opened) const;
  Outcome<> become_wanted(const InodeRef& inode, int opened, const FileStatus& status) const;

  Share* share_;
  const InodeRef* folder_;
  std::string name_;
  Look wanted_;
  uint64_t begun_ = 0;
  // To be noted: what the host does not see to itself.
  std::optional<PosixAcl> access_;
  std::optional<PosixAcl> default_;
};

}  // namespace snug
