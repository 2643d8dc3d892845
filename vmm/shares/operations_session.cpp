// What begins and ends what a guest has, and what is about all of it.
#include <fcntl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>

#include "vmm/shares/limits.h"
#include "vmm/shares/operations.h"

namespace snug::operations {
namespace {

constexpr uint16_t kBackground = 256;  // requests that nobody waits for: reading ahead, writing back

uint64_t agreed_flags(const ShareOptions& options, uint64_t offered) {
  uint64_t flags = FUSE_ASYNC_READ | FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS | FUSE_ATOMIC_O_TRUNC |
                   FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO |
                   FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS |
                   FUSE_SETXATTR_EXT | FUSE_INIT_EXT;
  if (options.cache == ShareCache::kAuto) flags |= FUSE_AUTO_INVAL_DATA;
  // A guest that cannot change anything has nothing to write back.
  if (options.cache == ShareCache::kAlways && !options.readonly) flags |= FUSE_WRITEBACK_CACHE;
  if (options.cache == ShareCache::kNone) flags |= fuse::kDirectIoAllowMmap;
  if (options.submounts) flags |= FUSE_SUBMOUNTS;
  // Both or neither: a default access control list takes the place of the umask.
  constexpr uint64_t kAcls = FUSE_POSIX_ACL | FUSE_DONT_MASK;
  if ((offered & kAcls) == kAcls) flags |= kAcls;
  return flags & offered;
}

}  // namespace

Outcome<> init(Share& share, Request& request, Reply& reply) {
  // Of before 7.36: it ends with the first flags.
  struct Short {
    uint32_t major, minor, max_readahead, flags;
  };
  const auto in = SNUG_TRY(request.take<Short>());
  if (in.major < fuse::kMajor) return refuse(EPROTO);
  share.waits.end_all();
  share.forget_all();
  fuse_init_out out{};
  out.major = fuse::kMajor;
  out.minor = fuse::kMinor;
  // A newer one tries again with what it is told.
  if (in.major == fuse::kMajor) {
    if (in.minor < fuse::kOldestMinor) return refuse(EPROTO);
    uint64_t offered = in.flags;
    if ((in.flags & FUSE_INIT_EXT) != 0) offered |= uint64_t{SNUG_TRY(request.take<uint32_t>())} << 32;
    const uint64_t flags = agreed_flags(share.options, offered);
    share.agreed = {true, std::min(in.minor, fuse::kMinor), flags};
    out.max_readahead = std::min<uint32_t>(in.max_readahead, kMaxTransfer);
    out.flags = static_cast<uint32_t>(flags);
    out.flags2 = static_cast<uint32_t>(flags >> 32);
    out.max_background = kBackground;
    out.congestion_threshold = kBackground / 4 * 3;
    out.max_write = kMaxTransfer;
    out.max_pages = kMaxTransfer / 4096;
    out.time_gran = 1;
  }
  reply.put(out);
  return {};
}

Outcome<> destroy(Share& share, Request&, Reply&) {
  share.waits.end_all();
  share.forget_all();
  return {};
}

Outcome<> forget(Share& share, Request& request, Reply&) {
  const auto in = SNUG_TRY(request.take<fuse_forget_in>());
  share.inodes.forget(request.header().nodeid, in.nlookup);
  return {};
}

Outcome<> batch_forget(Share& share, Request& request, Reply&) {
  const auto in = SNUG_TRY(request.take<fuse_batch_forget_in>());
  for (uint32_t i = 0; i < in.count; ++i) {
    const auto one = SNUG_TRY(request.take<fuse_forget_one>());
    share.inodes.forget(one.nodeid, one.nlookup);
  }
  return {};
}

Outcome<> statfs(Share& share, Request& request, Reply& reply) {
  const auto inode = SNUG_TRY(share.inodes.find(request.header().nodeid));
  struct statfs status {};
  SNUG_TRY(outcome_of(::fstatfs(inode.fd(), &status)));
  fuse_statfs_out out{};
  out.st.blocks = status.f_blocks;
  out.st.bfree = status.f_bfree;
  out.st.bavail = status.f_bavail;
  out.st.files = status.f_files;
  out.st.ffree = status.f_ffree;
  out.st.bsize = static_cast<uint32_t>(status.f_bsize);
  out.st.frsize = static_cast<uint32_t>(status.f_frsize != 0 ? status.f_frsize : status.f_bsize);
  out.st.namelen = static_cast<uint32_t>(status.f_namelen);
  reply.put(out);
  return {};
}

Outcome<> syncfs(Share& share, Request& request, Reply&) {
  const auto inode = SNUG_TRY(share.inodes.find(request.header().nodeid));
  if (!inode.is_folder() && !inode.is_file()) return refuse(EINVAL);
  const auto opened = SNUG_TRY(share.host.reopen(inode.fd(), O_RDONLY));
  return outcome_of(::syncfs(opened.get()));
}

Outcome<> not_an_ioctl(Share&, Request&, Reply&) { return refuse(ENOTTY); }

}  // namespace snug::operations
