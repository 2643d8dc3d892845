// Files and folders that are open.
#include <fcntl.h>
#include <unistd.h>

#include "vmm/shares/listing.h"
#include "vmm/shares/open_file.h"
#include "vmm/shares/operations.h"

namespace snug::operations {

Outcome<> open(Share& share, Request& request, Reply& reply) {
  const auto in = SNUG_TRY(request.take<fuse_open_in>());
  const auto inode = SNUG_TRY(share.inodes.find(request.header().nodeid));
  reply.put(SNUG_TRY(open_inode(share, inode, in.flags, in.open_flags)).out);
  return {};
}

Outcome<> opendir(Share& share, Request& request, Reply& reply) {
  SNUG_TRY(request.take<fuse_open_in>());
  const auto inode = SNUG_TRY(share.inodes.find(request.header().nodeid));
  reply.put(SNUG_TRY(open_folder(share, inode)).out);
  return {};
}

Outcome<> release(Share& share, Request& request, Reply&) {
  const auto in = SNUG_TRY(request.take<fuse_release_in>());
  auto handle = SNUG_TRY(share.handles.remove(in.fh, request.header().nodeid));
  share.locks.drop_through(*handle);
  share.locks.drop_unused(handle->inode);
  handle.reset();
  share.waits.poll();
  return {};
}

Outcome<> flush(Share& share, Request& request, Reply&) {
  const auto in = SNUG_TRY(request.take<fuse_flush_in>());
  SNUG_TRY(share.handles.find(in.fh, request.header().nodeid));
  share.locks.drop(request.header().nodeid, in.lock_owner);
  share.waits.poll();
  return {};
}

Outcome<> fsync(Share& share, Request& request, Reply&) {
  const auto in = SNUG_TRY(request.take<fuse_fsync_in>());
  const auto handle = SNUG_TRY(share.handles.find(in.fh, request.header().nodeid));
  const int fd = handle->fd.get();
  if (share.is_made_up(handle->inode)) return {};
  return outcome_of((in.fsync_flags & FUSE_FSYNC_FDATASYNC) != 0 ? ::fdatasync(fd) : ::fsync(fd));
}

Outcome<> readdir(Share& share, Request& request, Reply& reply) {
  const auto in = SNUG_TRY(request.take<fuse_read_in>());
  const auto handle = SNUG_TRY(share.handles.find(in.fh, request.header().nodeid));
  return list(share, *handle, in, reply, Listing::kNames);
}

Outcome<> readdirplus(Share& share, Request& request, Reply& reply) {
  const auto in = SNUG_TRY(request.take<fuse_read_in>());
  const auto handle = SNUG_TRY(share.handles.find(in.fh, request.header().nodeid));
  return list(share, *handle, in, reply, Listing::kWithAttributes);
}

}  // namespace snug::operations
