// Names that go, or become others.
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/shares/operations.h"

namespace snug::operations {
namespace {

Outcome<> remove(Share& share, Request& request, int flags) {
  const std::string name(SNUG_TRY(request.take_name()));
  const auto folder = SNUG_TRY(share.inodes.find(request.header().nodeid));
  if (!folder.is_folder()) return refuse(ENOTDIR);
  return outcome_of(::unlinkat(folder.fd(), name.c_str(), flags));
}

// What a name is now, in case that it has to be found again.
void note_name(Share& share, const InodeRef& folder, const std::string& name) {
  const auto found = share.host.look_up(folder.fd(), name);
  if (found) share.inodes.moved(folder.id(), name, found->status);
}

Outcome<> rename_to(Share& share, Request& request, uint64_t new_folder, uint32_t flags) {
  const std::string from_name(SNUG_TRY(request.take_name()));
  const std::string to_name(SNUG_TRY(request.take_name()));
  const auto from = SNUG_TRY(share.inodes.find(request.header().nodeid));
  const auto to = SNUG_TRY(share.inodes.find(new_folder));
  if (!from.is_folder() || !to.is_folder()) return refuse(ENOTDIR);
  SNUG_TRY(
      outcome_of(::syscall(SYS_renameat2, from.fd(), from_name.c_str(), to.fd(), to_name.c_str(), flags)));
  note_name(share, to, to_name);
  if ((flags & RENAME_EXCHANGE) != 0) note_name(share, from, from_name);
  return {};
}

}  // namespace

Outcome<> unlink(Share& share, Request& request, Reply&) { return remove(share, request, 0); }

Outcome<> rmdir(Share& share, Request& request, Reply&) { return remove(share, request, AT_REMOVEDIR); }

Outcome<> rename(Share& share, Request& request, Reply&) {
  const auto in = SNUG_TRY(request.take<fuse_rename_in>());
  return rename_to(share, request, in.newdir, 0);
}

Outcome<> rename2(Share& share, Request& request, Reply&) {
  const auto in = SNUG_TRY(request.take<fuse_rename2_in>());
  // A whiteout would be a device node of the host's.
  if ((in.flags & ~uint32_t{RENAME_NOREPLACE | RENAME_EXCHANGE}) != 0) return refuse(EINVAL);
  return rename_to(share, request, in.newdir, in.flags);
}

}  // namespace snug::operations
