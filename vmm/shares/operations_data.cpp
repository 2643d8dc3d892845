// What is in files. Data goes straight between them and guest memory.
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>

#include "vmm/shares/limits.h"
#include "vmm/shares/operations.h"
#include "vmm/shares/privileges.h"

namespace snug::operations {
namespace {

constexpr uint32_t kFallocateModes = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_COLLAPSE_RANGE |
                                     FALLOC_FL_ZERO_RANGE | FALLOC_FL_INSERT_RANGE | FALLOC_FL_UNSHARE_RANGE;

// A regular file that is open.
Outcome<std::shared_ptr<Handle>> open_file(Share& share, uint64_t number, uint64_t inode) {
  auto handle = SNUG_TRY(share.handles.find(number, inode));
  if (!handle->inode.is_file()) return refuse(EISDIR);
  return handle;
}

// What the guest's open(2) or the write itself asked for.
int write_flags(const Share& share, uint32_t guest_flags) {
  int flags = 0;
  // A guest that writes back knows itself where the end is.
  if ((guest_flags & O_APPEND) != 0 && !share.agreed.has(FUSE_WRITEBACK_CACHE)) flags |= RWF_APPEND;
  if ((guest_flags & O_DSYNC) != 0) flags |= (guest_flags & O_SYNC) == O_SYNC ? RWF_SYNC : RWF_DSYNC;
  return flags;
}

// overlayfs forgets RWF_APPEND on its way to the file below (Linux 6.1), but not how a file was opened.
bool forgets_append(int fd) {
  struct statfs found {};
  return ::fstatfs(fd, &found) == 0 && found.f_type == OVERLAYFS_SUPER_MAGIC;
}

// Opened anew for one write, where that takes it; none: as it is.
UniqueFd opened_to_append(Share& share, const Handle& handle, int how) {
  if ((how & RWF_APPEND) == 0 || !forgets_append(handle.fd.get())) return {};
  auto fd = share.with_descriptors([&] { return share.host.reopen(handle.inode.fd(), O_WRONLY | O_APPEND); });
  return fd ? std::move(*fd) : UniqueFd();
}

Outcome<> check_range(uint64_t offset, uint64_t length) {
  if (offset > INT64_MAX || length > INT64_MAX - offset) return refuse(EINVAL);
  return {};
}

// Calls move(iovecs, count, offset) until all of it is done, or it comes to less: the end, or an error, which
// is told when nothing went before it.
template <class Move>
Outcome<uint64_t> transfer(std::vector<iovec>& iovecs, uint64_t offset, Move move) {
  uint64_t done = 0;
  for (size_t at = 0; at < iovecs.size();) {
    const size_t count = std::min(iovecs.size() - at, kMaxIovecs);
    uint64_t wanted = 0;
    for (size_t i = at; i < at + count; ++i) wanted += iovecs[i].iov_len;
    const ssize_t moved =
        move(iovecs.data() + at, static_cast<int>(count), static_cast<off_t>(offset + done));
    if (moved < 0) {
      if (done == 0) return refuse(errno);
      break;
    }
    done += static_cast<uint64_t>(moved);
    if (static_cast<uint64_t>(moved) < wanted) break;
    at += count;
  }
  return done;
}

}  // namespace

Outcome<> read(Share& share, Request& request, Reply& reply) {
  const auto in = SNUG_TRY(request.take<fuse_read_in>());
  const auto handle = SNUG_TRY(open_file(share, in.fh, request.header().nodeid));
  SNUG_TRY(check_range(in.offset, in.size));
  std::vector<iovec> iovecs;
  // Less than asked for would say that the file ends there.
  if (in.size > kMaxTransfer || !reply.space(in.size, iovecs)) return refuse(EINVAL);
  const auto count = transfer(iovecs, in.offset, [&handle](const iovec* parts, int size, off_t offset) {
    return ::preadv2(handle->fd.get(), parts, size, offset, 0);
  });
  if (!count) reply.spoilt(in.size);
  reply.filled(SNUG_TRY(count));
  return {};
}

Outcome<> write(Share& share, Request& request, Reply& reply) {
  const auto in = SNUG_TRY(request.take<fuse_write_in>());
  const auto handle = SNUG_TRY(open_file(share, in.fh, request.header().nodeid));
  SNUG_TRY(check_range(in.offset, in.size));
  std::vector<iovec> iovecs;
  if (in.size > kMaxTransfer || !request.data(in.size, iovecs)) return refuse(EINVAL);
  const int how = write_flags(share, in.flags);
  drop_privileges(share, handle->inode, handle->fd.get(), (in.write_flags & FUSE_WRITE_KILL_SUIDGID) != 0);
  const UniqueFd appending = opened_to_append(share, *handle, how);
  const int file = appending ? appending.get() : handle->fd.get();
  const uint64_t count =
      SNUG_TRY(transfer(iovecs, in.offset, [&](const iovec* parts, int size, off_t offset) {
        return ::pwritev2(file, parts, size, offset, how);
      }));
  fuse_write_out out{};
  out.size = static_cast<uint32_t>(count);
  reply.put(out);
  return {};
}

Outcome<> fallocate(Share& share, Request& request, Reply&) {
  const auto in = SNUG_TRY(request.take<fuse_fallocate_in>());
  const auto handle = SNUG_TRY(open_file(share, in.fh, request.header().nodeid));
  SNUG_TRY(check_range(in.offset, in.length));
  if ((in.mode & ~kFallocateModes) != 0) return refuse(EOPNOTSUPP);
  SNUG_TRY(outcome_of(::fallocate(handle->fd.get(), static_cast<int>(in.mode), static_cast<off_t>(in.offset),
                                  static_cast<off_t>(in.length))));
  drop_privileges(share, handle->inode, handle->fd.get(), request.header().uid != 0);
  return {};
}

Outcome<> lseek(Share& share, Request& request, Reply& reply) {
  const auto in = SNUG_TRY(request.take<fuse_lseek_in>());
  const auto handle = SNUG_TRY(open_file(share, in.fh, request.header().nodeid));
  // The rest is the guest's own affair. Where the descriptor stands means nothing to anybody.
  if (in.whence != SEEK_DATA && in.whence != SEEK_HOLE) return refuse(EINVAL);
  // What the guest has still to write back would be a hole: it asks no more, and takes all for data.
  if (share.agreed.has(FUSE_WRITEBACK_CACHE)) return refuse(ENOSYS);
  if (in.offset > INT64_MAX) return refuse(ENXIO);
  const off_t offset = ::lseek(handle->fd.get(), static_cast<off_t>(in.offset), static_cast<int>(in.whence));
  if (offset < 0) return refuse(errno);
  reply.put(fuse_lseek_out{static_cast<uint64_t>(offset)});
  return {};
}

Outcome<> copy_file_range(Share& share, Request& request, Reply& reply) {
  const auto in = SNUG_TRY(request.take<fuse_copy_file_range_in>());
  if (in.flags != 0) return refuse(EINVAL);
  const auto from = SNUG_TRY(open_file(share, in.fh_in, request.header().nodeid));
  const auto to = SNUG_TRY(open_file(share, in.fh_out, in.nodeid_out));
  const uint64_t length = std::min(in.len, kMaxCopy);
  SNUG_TRY(check_range(in.off_in, length));
  SNUG_TRY(check_range(in.off_out, length));
  auto from_offset = static_cast<off_t>(in.off_in);
  auto to_offset = static_cast<off_t>(in.off_out);
  drop_privileges(share, to->inode, to->fd.get(), request.header().uid != 0);
  const ssize_t count = ::copy_file_range(from->fd.get(), &from_offset, to->fd.get(), &to_offset, length, 0);
  if (count < 0) return refuse(errno);
  fuse_write_out out{};
  out.size = static_cast<uint32_t>(count);
  reply.put(out);
  return {};
}

}  // namespace snug::operations
