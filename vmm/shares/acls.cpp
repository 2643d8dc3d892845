#include "vmm/shares/acls.h"

#include <sys/xattr.h>

#include <array>

#include "vmm/shares/open_file.h"

namespace snug {
namespace {

constexpr char kNotedAccess[] = "user.snug.x.system.posix_acl_access";
constexpr char kNotedDefault[] = "user.snug.x.system.posix_acl_default";

using Buffer = std::array<char, PosixAcl::kMaxBytes>;

const char* acl_on_host(const Share& share, std::string_view name) {
  if (!share.owners.real_ids()) return name == kAccessAcl ? kNotedAccess : kNotedDefault;
  return name == kAccessAcl ? kAccessAcl.data() : kDefaultAcl.data();
}

std::span<const std::byte> bytes_of(const Buffer& buffer, size_t size) {
  return std::as_bytes(std::span(buffer)).first(size);
}

// To be out of descriptors is no answer.
bool is_passing(int error) { return error == EMFILE || error == ENFILE || error == ENOMEM; }

Outcome<> taken_away(int opened, const char* name) {
  if (::fremovexattr(opened, name) == 0 || errno == ENODATA || errno == EOPNOTSUPP) return {};
  return refuse(errno);
}

// The host's own, whose mode follows; bits that it has dropped on the way and need not have come back.
Outcome<> set_on_host(Share& share, const InodeRef& inode, int opened, std::string_view name,
                      std::span<const std::byte> value, const Look& wanted) {
  SNUG_TRY(outcome_of(::fsetxattr(opened, acl_on_host(share, name), value.data(), value.size(), 0)));
  if (name != kAccessAcl) return {};
  const Seen now = SNUG_TRY(see(share, inode));
  if (now.look == wanted) return {};
  return share.owners.change(inode, opened, now.status, now.look, wanted);
}

}  // namespace

std::optional<std::string_view> acl_in_guest(const Share& share, std::string_view host_name) {
  for (const std::string_view name : {kAccessAcl, kDefaultAcl})
    if (host_name == acl_on_host(share, name)) return name;
  return std::nullopt;
}

Outcome<std::string> get_acl(const Share& share, const InodeRef& inode, std::string_view name) {
  // Linux takes every other error for one of the file's.
  if (share.is_made_up(inode) || (!inode.is_file() && !inode.is_folder())) return refuse(ENODATA);
  Buffer buffer;
  const auto size = share.host.xattr(inode.fd(), acl_on_host(share, name), buffer);
  if (!size) return refuse(is_passing(size.error()) ? size.error() : ENODATA);
  const Seen seen = SNUG_TRY(see(share, inode));
  if (seen.look.is_device()) return refuse(ENODATA);
  if (share.owners.real_ids()) return std::string(buffer.data(), *size);
  if (!share.owners.may_override(seen.status)) return refuse(ENODATA);
  auto acl = PosixAcl::parse(bytes_of(buffer, *size));
  if (!acl || (name == kAccessAcl && !seen.look.group_rights)) return refuse(ENODATA);
  // The mode has changed since, perhaps.
  if (name == kAccessAcl) acl->set_mode(seen.look.mode);
  return acl->bytes();
}

namespace {

Outcome<> try_to_set(Share& share, const InodeRef& inode, std::string_view name,
                     std::span<const std::byte> value, OnSetAcl setgid) {
  const PosixAcl acl = SNUG_TRY(PosixAcl::parse(value));
  const Seen seen = SNUG_TRY(see(share, inode));
  if ((!inode.is_file() && !inode.is_folder()) || seen.look.is_device()) return refuse(EOPNOTSUPP);
  if (name == kDefaultAcl && !inode.is_folder()) return refuse(EACCES);
  const auto opened = SNUG_TRY(open_for_xattrs(share, inode));
  Look wanted = seen.look;
  wanted.mode = (wanted.mode & ~uint32_t{0777}) | acl.mode();
  if (setgid == OnSetAcl::kEndsSetgid) wanted.mode &= ~uint32_t{S_ISGID};
  if (share.owners.real_ids()) return set_on_host(share, inode, opened.get(), name, value, wanted);
  if (!share.owners.may_override(seen.status)) return refuse(EPERM);
  if (name == kDefaultAcl) return note_acl(opened.get(), name, acl);
  wanted.group_rights.reset();
  if (acl.is_more_than_mode()) {
    wanted.group_rights = acl.group_rights();
    SNUG_TRY(note_acl(opened.get(), name, acl));
  }
  SNUG_TRY(share.owners.change(inode, opened.get(), seen.status, seen.look, wanted));
  return acl.is_more_than_mode() ? Outcome<>{} : taken_away(opened.get(), kNotedAccess);
}

Outcome<> try_to_remove(Share& share, const InodeRef& inode, std::string_view name) {
  if (!inode.is_file() && !inode.is_folder()) return {};
  const Seen seen = SNUG_TRY(see(share, inode));
  const auto opened = SNUG_TRY(open_for_xattrs(share, inode));
  if (name == kAccessAcl && seen.look.group_rights) {
    Look wanted = seen.look;
    wanted.group_rights.reset();
    SNUG_TRY(share.owners.change(inode, opened.get(), seen.status, seen.look, wanted));
  }
  return taken_away(opened.get(), acl_on_host(share, name));
}

}  // namespace

Outcome<> set_acl(Share& share, const InodeRef& inode, std::string_view name,
                  std::span<const std::byte> value, OnSetAcl setgid) {
  const auto set = try_to_set(share, inode, name, value, setgid);
  inode->hands_nothing_down.ends();
  return set;
}

Outcome<> remove_acl(Share& share, const InodeRef& inode, std::string_view name) {
  const auto removed = try_to_remove(share, inode, name);
  inode->hands_nothing_down.ends();
  return removed;
}

Outcome<std::optional<PosixAcl>> default_acl(const Share& share, const InodeRef& folder,
                                             const FileStatus& status) {
  if (!share.agreed.has(FUSE_POSIX_ACL) || (!share.owners.real_ids() && !share.owners.may_override(status)))
    return std::nullopt;
  Buffer buffer;
  const auto size = share.host.xattr(folder.fd(), acl_on_host(share, kDefaultAcl), buffer);
  if (!size && is_passing(size.error())) return refuse(size.error());
  if (!size) return std::nullopt;
  auto acl = PosixAcl::parse(bytes_of(buffer, *size));
  if (!acl) return std::nullopt;
  return std::move(*acl);
}

Outcome<> note_acl(int opened, std::string_view name, const PosixAcl& acl) {
  const std::string bytes = acl.bytes();
  return outcome_of(
      ::fsetxattr(opened, name == kAccessAcl ? kNotedAccess : kNotedDefault, bytes.data(), bytes.size(), 0));
}

}  // namespace snug
