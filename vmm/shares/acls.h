// Access control lists of files and folders, and where they are kept. Where ids are real they are the host's,
// which keeps them in step with modes and hands a folder's default down. Elsewhere they are the guest's
// alone, as other owners are (owner.h), and the same is done here:
//
//   user.snug.x.system.posix_acl_access, user.snug.x.system.posix_acl_default     as the guest has them
//
// The mode has the mask's rights in place of the group's then, and on the host its group gets no more than
// its own entry allows. Links, FIFOs, sockets and device nodes have none.
//
// Thread: any number at a time.
#pragma once

#include <optional>
#include <string>

#include "vmm/shares/attributes.h"
#include "vmm/shares/posix_acl.h"
#include "vmm/shares/share.h"

namespace snug {

enum class OnSetAcl : uint8_t { kKeepsSetgid, kEndsSetgid };

// Of is_acl_name(). ENODATA: there is none.
Outcome<std::string> get_acl(const Share& share, const InodeRef& inode, std::string_view name);
Outcome<> set_acl(Share& share, const InodeRef& inode, std::string_view name,
                  std::span<const std::byte> value, OnSetAcl setgid);
// One that is not there as well.
Outcome<> remove_acl(Share& share, const InodeRef& inode, std::string_view name);
// What an attribute of the host's is as a list in the guest; nothing: none.
std::optional<std::string_view> acl_in_guest(const Share& share, std::string_view host_name);

// What is made in a folder gets this.
Outcome<std::optional<PosixAcl>> default_acl(const Share& share, const InodeRef& folder,
                                             const FileStatus& status);
// Only noted, where ids are not real: the file's look is the caller's affair.
Outcome<> note_acl(int opened, std::string_view name, const PosixAcl& acl);

}  // namespace snug
