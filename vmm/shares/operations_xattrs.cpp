// Extended attributes (xattr_names.h), of regular files and folders: the host keeps a user's of nothing else.
#include <fcntl.h>
#include <sys/xattr.h>

#include <algorithm>
#include <memory>

#include "vmm/shares/acls.h"
#include "vmm/shares/limits.h"
#include "vmm/shares/open_file.h"
#include "vmm/shares/operations.h"
#include "vmm/shares/privileges.h"
#include "vmm/shares/xattr_names.h"

namespace snug::operations {
namespace {

Outcome<> answer_size(Reply& reply, size_t size) {
  if (reply.room() < sizeof(fuse_getxattr_out)) return refuse(EINVAL);
  fuse_getxattr_out out{};
  out.size = static_cast<uint32_t>(size);
  reply.put(out);
  return {};
}

// A value or a list into the reply, or its size when the guest asks for that.
Outcome<> answer_bytes(Reply& reply, uint32_t wanted, std::span<const char> bytes) {
  if (wanted == 0) return answer_size(reply, bytes.size());
  if (bytes.size() > wanted || bytes.size() > reply.room()) return refuse(ERANGE);
  reply.put_bytes(std::as_bytes(bytes));
  return {};
}

// Else they are a kind that is not kept.
bool has_acls(const Share& share, std::string_view name) {
  return share.agreed.has(FUSE_POSIX_ACL) && is_acl_name(name);
}

Outcome<std::string> changed_name(std::string_view name) {
  auto on_host = xattr_on_host(name);
  // To be read it is not there; to be written it is not the guest's.
  if (!on_host && on_host.error() == ENODATA) return refuse(EPERM);
  return on_host;
}

}  // namespace

Outcome<> setxattr(Share& share, Request& request, Reply&) {
  struct Short {
    uint32_t size, flags;
  };
  const auto in = SNUG_TRY(request.take<Short>());
  uint64_t more = 0;
  if (share.agreed.has(FUSE_SETXATTR_EXT)) more = SNUG_TRY(request.take<uint64_t>());
  const auto name = SNUG_TRY(request.take_text());
  const auto value = SNUG_TRY(request.take_bytes(in.size));
  const auto inode = SNUG_TRY(share.inodes.find(request.header().nodeid));
  if (has_acls(share, name)) {
    const bool ends = (more & FUSE_SETXATTR_ACL_KILL_SGID) != 0;
    return set_acl(share, inode, name, value, ends ? OnSetAcl::kEndsSetgid : OnSetAcl::kKeepsSetgid);
  }
  const std::string on_host = SNUG_TRY(changed_name(name));
  const auto fd = SNUG_TRY(open_for_xattrs(share, inode));
  const auto set = outcome_of(
      ::fsetxattr(fd.get(), on_host.c_str(), value.data(), value.size(), static_cast<int>(in.flags)));
  if (name == kCapability) {
    note_privileges(*inode);
    inode->no_capability.ends();
  }
  return set;
}

Outcome<> getxattr(Share& share, Request& request, Reply& reply) {
  const auto in = SNUG_TRY(request.take<fuse_getxattr_in>());
  const auto name = SNUG_TRY(request.take_text());
  const auto inode = SNUG_TRY(share.inodes.find(request.header().nodeid));
  if (has_acls(share, name)) {
    const std::string acl = SNUG_TRY(get_acl(share, inode, name));
    return answer_bytes(reply, in.size, acl);
  }
  const std::string on_host = SNUG_TRY(xattr_on_host(name));
  if (share.is_made_up(inode)) return refuse(ENODATA);
  if (!inode.is_file() && !inode.is_folder()) return refuse(EOPNOTSUPP);
  // Linux asks before every first write to a file, and before every change of its owner.
  const bool is_capability = name == kCapability;
  const uint64_t time = Recent::now();
  if (is_capability && inode->no_capability.holds(time)) return refuse(ENODATA);
  const uint64_t begun = inode->no_capability.begin();
  const size_t most = std::min(in.size, kMaxXattr);
  const auto value = std::make_unique_for_overwrite<char[]>(most);
  const auto length = share.with_descriptors(
      [&] { return share.host.xattr(inode.fd(), on_host.c_str(), std::span(value.get(), most)); });
  if (!length && length.error() == ENODATA && is_capability)
    inode->no_capability.found(begun, time + moment_of(share.options));
  if (!length) return refuse(length.error());
  if (in.size == 0) return answer_size(reply, *length);
  return answer_bytes(reply, in.size, {value.get(), *length});
}

Outcome<> listxattr(Share& share, Request& request, Reply& reply) {
  const auto in = SNUG_TRY(request.take<fuse_getxattr_in>());
  const auto inode = SNUG_TRY(share.inodes.find(request.header().nodeid));
  if (share.is_made_up(inode) || (!inode.is_file() && !inode.is_folder()))
    return answer_bytes(reply, in.size, {});
  const auto fd = SNUG_TRY(open_for_xattrs(share, inode));
  const auto names = std::make_unique_for_overwrite<char[]>(kMaxXattr);
  const ssize_t length = ::flistxattr(fd.get(), names.get(), kMaxXattr);
  if (length < 0) return refuse(errno);
  std::string found;
  for (std::string_view rest(names.get(), static_cast<size_t>(length)); !rest.empty();) {
    const auto end = std::min(rest.find('\0'), rest.size() - 1);
    const auto on_host = rest.substr(0, end);
    rest.remove_prefix(end + 1);
    const auto name = share.agreed.has(FUSE_POSIX_ACL) && acl_in_guest(share, on_host)
                          ? acl_in_guest(share, on_host)
                          : xattr_in_guest(on_host);
    // Those are for who may read them.
    if (!name || (name->starts_with("trusted.") && request.header().uid != 0)) continue;
    found.append(*name).push_back('\0');
  }
  return answer_bytes(reply, in.size, found);
}

Outcome<> removexattr(Share& share, Request& request, Reply&) {
  const auto name = SNUG_TRY(request.take_text());
  const auto inode = SNUG_TRY(share.inodes.find(request.header().nodeid));
  if (has_acls(share, name)) return remove_acl(share, inode, name);
  const std::string on_host = SNUG_TRY(changed_name(name));
  const auto fd = SNUG_TRY(open_for_xattrs(share, inode));
  return outcome_of(::fremovexattr(fd.get(), on_host.c_str()));
}

}  // namespace snug::operations
