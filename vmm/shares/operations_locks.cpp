// Locks. FUSE_SETLKW waits in no thread (lock_waits.h).
#include <fcntl.h>

#include "vmm/shares/operations.h"

namespace snug::operations {
namespace {

Outcome<WantedLock> wanted_lock(Share& share, Request& request) {
  const auto in = SNUG_TRY(request.take<fuse_lk_in>());
  auto handle = SNUG_TRY(share.handles.find(in.fh, request.header().nodeid));
  if (!handle->inode.is_file()) return refuse(EBADF);
  return WantedLock{std::move(handle), in.owner, in.lk, (in.lk_flags & FUSE_LK_FLOCK) != 0};
}

}  // namespace

Outcome<> getlk(Share& share, Request& request, Reply& reply) {
  const auto wanted = SNUG_TRY(wanted_lock(share, request));
  reply.put(fuse_lk_out{SNUG_TRY(share.locks.test(*wanted.handle, wanted.owner, wanted.lock))});
  return {};
}

Outcome<> setlk(Share& share, Request& request, Reply&) {
  const auto wanted = SNUG_TRY(wanted_lock(share, request));
  if (wanted.whole_file)
    SNUG_TRY(share.locks.set_whole(*wanted.handle, wanted.lock.type));
  else
    SNUG_TRY(share.locks.set(*wanted.handle, wanted.owner, wanted.lock));
  // Giving back, and asking for less than before, is what others wait for.
  if (wanted.lock.type != F_WRLCK) share.waits.poll();
  return {};
}

Outcome<> setlkw(Share& share, Request& request, Reply& reply) {
  auto wanted = SNUG_TRY(wanted_lock(share, request));
  const bool gives = wanted.lock.type != F_WRLCK;
  SNUG_TRY(share.waits.take(std::move(wanted), request.header().unique, reply));
  if (gives) share.waits.poll();
  return {};
}

Outcome<> interrupt(Share& share, Request& request, Reply&) {
  share.waits.interrupt(SNUG_TRY(request.take<fuse_interrupt_in>()).unique);
  return {};
}

}  // namespace snug::operations
