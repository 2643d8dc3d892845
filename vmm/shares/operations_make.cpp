// What makes files and names.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/shares/new_file.h"
#include "vmm/shares/open_file.h"
#include "vmm/shares/operations.h"

namespace snug::operations {
namespace {

constexpr size_t kLongestTarget = 4095;

// What was made, whatever its name leads to by now: it is quicker found by that.
Outcome<HostFiles::Found> found_behind(const Share& share, const InodeRef& folder, const NewFile& file,
                                       int opened) {
  if (!file.name().empty()) {
    auto found = share.host.look_up(folder.fd(), file.name());
    const FileStatus made = SNUG_TRY(share.host.status(opened));
    if (found && is_same_file(found->status, made)) return found;
  }
  HostFiles::Found found{SNUG_TRY(share.host.reopen(opened, O_PATH)), {}};
  found.status = SNUG_TRY(share.host.status(found.fd.get()));
  return found;
}

// A regular file under a name that nothing had.
Outcome<UniqueFd> make_file(const InodeRef& folder, const NewFile& file, int flags) {
  UniqueFd opened(::openat(folder.fd(), file.name().c_str(),
                           flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, file.host_mode()));
  if (!opened) return refuse(errno);
  return opened;
}

Outcome<> answer_made(Reply& reply, const Entered& entered) {
  reply.put(entered.out);
  return {};
}

Outcome<> answer_opened(Reply& reply, const fuse_entry_out& entry, const Opened& opened) {
  reply.put(entry);
  reply.put(opened.out);
  return {};
}

// As if it had been looked up and opened: a file that another has made in the meantime.
Outcome<> open_existing(Share& share, Reply& reply, const InodeRef& folder, std::string_view name,
                        const fuse_create_in& in) {
  const Entered entered = SNUG_TRY(look_up(share, folder, name));
  const auto opened = open_inode(share, entered.inode, in.flags, in.open_flags);
  if (!opened) {
    share.inodes.forget(entered.out.nodeid, 1);
    return refuse(opened.error());
  }
  return answer_opened(reply, entered.out, *opened);
}

// A file that was made with `opened`: found by that, whatever its name leads to by now.
Outcome<> answer_created(Share& share, Reply& reply, const InodeRef& folder, NewFile& file,
                         DescriptorBudget::Share reserved, UniqueFd opened) {
  auto found =
      SNUG_TRY(share.with_descriptors([&] { return found_behind(share, folder, file, opened.get()); }));
  const Entered entered = SNUG_TRY(file.enter_found(std::move(found), opened.get()));
  const auto kept = keep_open(share, entered.inode, std::move(reserved), std::move(opened), Made::kNow);
  if (!kept) {
    share.inodes.forget(entered.out.nodeid, 1);
    return refuse(kept.error());
  }
  return answer_opened(reply, entered.out, *kept);
}

}  // namespace

Outcome<> symlink(Share& share, Request& request, Reply& reply) {
  const auto name = SNUG_TRY(request.take_name());
  const std::string target(SNUG_TRY(request.take_text()));
  if (target.empty() || target.size() > kLongestTarget) return refuse(target.empty() ? ENOENT : ENAMETOOLONG);
  const auto folder = SNUG_TRY(share.inodes.find(request.header().nodeid));
  auto file = SNUG_TRY(NewFile::in(share, folder, name, request.header(), S_IFLNK | 0777, 0));
  SNUG_TRY(outcome_of(::symlinkat(target.c_str(), folder.fd(), file.name().c_str())));
  return answer_made(reply, SNUG_TRY(file.enter()));
}

Outcome<> mknod(Share& share, Request& request, Reply& reply) {
  const auto in = SNUG_TRY(request.take<fuse_mknod_in>());
  const auto name = SNUG_TRY(request.take_name());
  const auto folder = SNUG_TRY(share.inodes.find(request.header().nodeid));
  auto file = SNUG_TRY(NewFile::in(share, folder, name, request.header(), in.mode, in.umask, in.rdev));
  switch (in.mode & S_IFMT) {
    case S_IFREG:
    case S_IFCHR:
    case S_IFBLK: {
      const auto opened = SNUG_TRY(share.with_descriptors([&] { return make_file(folder, file, O_RDONLY); }));
      auto found =
          SNUG_TRY(share.with_descriptors([&] { return found_behind(share, folder, file, opened.get()); }));
      return answer_made(reply, SNUG_TRY(file.enter_found(std::move(found), opened.get())));
    }
    case S_IFIFO:
    case S_IFSOCK:
      SNUG_TRY(
          outcome_of(::mknodat(folder.fd(), file.name().c_str(), (in.mode & S_IFMT) | file.host_mode(), 0)));
      return answer_made(reply, SNUG_TRY(file.enter()));
    default:
      return refuse(EINVAL);
  }
}

Outcome<> mkdir(Share& share, Request& request, Reply& reply) {
  const auto in = SNUG_TRY(request.take<fuse_mkdir_in>());
  const auto name = SNUG_TRY(request.take_name());
  const auto folder = SNUG_TRY(share.inodes.find(request.header().nodeid));
  auto file =
      SNUG_TRY(NewFile::in(share, folder, name, request.header(), S_IFDIR | (in.mode & 07777), in.umask));
  SNUG_TRY(outcome_of(::mkdirat(folder.fd(), file.name().c_str(), file.host_mode())));
  return answer_made(reply, SNUG_TRY(file.enter()));
}

Outcome<> link(Share& share, Request& request, Reply& reply) {
  const auto in = SNUG_TRY(request.take<fuse_link_in>());
  const std::string name(SNUG_TRY(request.take_name()));
  const auto folder = SNUG_TRY(share.inodes.find(request.header().nodeid));
  if (!folder.is_folder()) return refuse(ENOTDIR);
  const auto inode = SNUG_TRY(share.inodes.find(in.oldnodeid));
  if (inode.is_folder()) return refuse(EPERM);
  // A path that ends in the descriptor is followed to the inode and no further.
  SNUG_TRY(outcome_of(::linkat(share.host.proc_self_fd(), FdName(inode.fd()).text(), folder.fd(),
                               name.c_str(), AT_SYMLINK_FOLLOW)));
  return answer_made(reply, SNUG_TRY(look_up(share, folder, name)));
}

Outcome<> create(Share& share, Request& request, Reply& reply) {
  const auto in = SNUG_TRY(request.take<fuse_create_in>());
  const auto name = SNUG_TRY(request.take_name());
  const auto folder = SNUG_TRY(share.inodes.find(request.header().nodeid));
  auto file =
      SNUG_TRY(NewFile::in(share, folder, name, request.header(), S_IFREG | (in.mode & 07777), in.umask));
  auto reserved = SNUG_TRY(share.handles.reserve());
  auto made = share.with_descriptors([&] { return make_file(folder, file, host_flags(share, in.flags)); });
  if (!made) {
    if (made.error() != EEXIST || (in.flags & O_EXCL) != 0) return refuse(made.error());
    reserved = {};
    return open_existing(share, reply, folder, name, in);
  }
  return answer_created(share, reply, folder, file, std::move(reserved), std::move(*made));
}

Outcome<> tmpfile(Share& share, Request& request, Reply& reply) {
  const auto in = SNUG_TRY(request.take<fuse_create_in>());
  const auto folder = SNUG_TRY(share.inodes.find(request.header().nodeid));
  auto file =
      SNUG_TRY(NewFile::in(share, folder, "", request.header(), S_IFREG | (in.mode & 07777), in.umask));
  auto reserved = SNUG_TRY(share.handles.reserve());
  const int access = host_flags(share, in.flags) & ~O_TRUNC;
  UniqueFd made(::openat(folder.fd(), ".", access | O_TMPFILE | O_CLOEXEC, file.host_mode()));
  if (!made) return refuse(errno);
  return answer_created(share, reply, folder, file, std::move(reserved), std::move(made));
}

}  // namespace snug::operations
