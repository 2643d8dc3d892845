#include <algorithm>
#include <array>
#include <climits>

#include "vmm/shares/limits.h"
#include "vmm/shares/operations.h"

namespace snug {
namespace {

using namespace operations;

// Longer than any of the host's, which are told apart from what is no request at all.
constexpr uint32_t kName = PATH_MAX;
constexpr uint32_t kEntry = sizeof(fuse_entry_out);
constexpr uint32_t kAttr = sizeof(fuse_attr_out);
constexpr uint32_t kForgets = 64u << 10;

template <class T>
constexpr uint32_t size = sizeof(T);

constexpr uint8_t kNothing = 0;
constexpr uint8_t kChanges = Operation::kChanges;
constexpr uint8_t kAlone = Operation::kAlone;
constexpr uint8_t kSilent = Operation::kSilent;
constexpr uint8_t kData = Operation::kData;
constexpr uint8_t kUnstarted = Operation::kUnstarted;

// By opcode. What is not in here is answered by ENOSYS, which tells the guest not to ask again.
constexpr std::array kOperations = {
    Operation{FUSE_LOOKUP, lookup, kName, kEntry, kNothing},
    Operation{FUSE_FORGET, forget, size<fuse_forget_in>, 0, kSilent},
    Operation{FUSE_GETATTR, getattr, size<fuse_getattr_in>, kAttr, kNothing},
    Operation{FUSE_SETATTR, setattr, size<fuse_setattr_in>, kAttr, kChanges},
    Operation{FUSE_READLINK, readlink, 0, 0, kNothing},
    Operation{FUSE_SYMLINK, symlink, kName + PATH_MAX, kEntry, kChanges},
    Operation{FUSE_MKNOD, mknod, size<fuse_mknod_in> + kName, kEntry, kChanges},
    Operation{FUSE_MKDIR, mkdir, size<fuse_mkdir_in> + kName, kEntry, kChanges},
    Operation{FUSE_UNLINK, unlink, kName, 0, kChanges},
    Operation{FUSE_RMDIR, rmdir, kName, 0, kChanges},
    Operation{FUSE_RENAME, rename, size<fuse_rename_in> + 2 * kName, 0, kChanges},
    Operation{FUSE_LINK, link, size<fuse_link_in> + kName, kEntry, kChanges},
    Operation{FUSE_OPEN, open, size<fuse_open_in>, size<fuse_open_out>, kNothing},
    Operation{FUSE_READ, read, size<fuse_read_in>, 0, kNothing},
    Operation{FUSE_WRITE, write, size<fuse_write_in>, size<fuse_write_out>, kChanges | kData},
    Operation{FUSE_STATFS, statfs, 0, size<fuse_statfs_out>, kNothing},
    Operation{FUSE_RELEASE, release, size<fuse_release_in>, 0, kNothing},
    Operation{FUSE_FSYNC, fsync, size<fuse_fsync_in>, 0, kNothing},
    Operation{FUSE_SETXATTR, setxattr, size<fuse_setxattr_in> + kName + kMaxXattr, 0, kChanges},
    Operation{FUSE_GETXATTR, getxattr, size<fuse_getxattr_in> + kName, 0, kNothing},
    Operation{FUSE_LISTXATTR, listxattr, size<fuse_getxattr_in>, 0, kNothing},
    Operation{FUSE_REMOVEXATTR, removexattr, kName, 0, kChanges},
    Operation{FUSE_FLUSH, flush, size<fuse_flush_in>, 0, kNothing},
    Operation{FUSE_INIT, init, size<fuse_init_in>, size<fuse_init_out>, kAlone | kUnstarted},
    Operation{FUSE_OPENDIR, opendir, size<fuse_open_in>, size<fuse_open_out>, kNothing},
    Operation{FUSE_READDIR, readdir, size<fuse_read_in>, 0, kNothing},
    Operation{FUSE_RELEASEDIR, release, size<fuse_release_in>, 0, kNothing},
    Operation{FUSE_FSYNCDIR, fsync, size<fuse_fsync_in>, 0, kNothing},
    Operation{FUSE_GETLK, getlk, size<fuse_lk_in>, size<fuse_lk_out>, kNothing},
    Operation{FUSE_SETLK, setlk, size<fuse_lk_in>, 0, kNothing},
    Operation{FUSE_SETLKW, setlkw, size<fuse_lk_in>, 0, kNothing},
    Operation{FUSE_ACCESS, access, size<fuse_access_in>, 0, kNothing},
    Operation{FUSE_CREATE, create, size<fuse_create_in> + kName, kEntry + size<fuse_open_out>, kChanges},
    Operation{FUSE_INTERRUPT, interrupt, size<fuse_interrupt_in>, 0, kSilent},
    Operation{FUSE_DESTROY, destroy, 0, 0, kAlone | kUnstarted},
    Operation{FUSE_IOCTL, not_an_ioctl, size<fuse_ioctl_in>, 0, kData},
    Operation{FUSE_BATCH_FORGET, batch_forget, size<fuse_batch_forget_in> + kForgets, 0, kSilent},
    Operation{FUSE_FALLOCATE, fallocate, size<fuse_fallocate_in>, 0, kChanges},
    Operation{FUSE_READDIRPLUS, readdirplus, size<fuse_read_in>, 0, kNothing},
    Operation{FUSE_RENAME2, rename2, size<fuse_rename2_in> + 2 * kName, 0, kChanges},
    Operation{FUSE_LSEEK, lseek, size<fuse_lseek_in>, size<fuse_lseek_out>, kNothing},
    Operation{FUSE_COPY_FILE_RANGE, copy_file_range, size<fuse_copy_file_range_in>, size<fuse_write_out>,
              kChanges},
    Operation{FUSE_SYNCFS, syncfs, size<fuse_syncfs_in>, 0, kNothing},
    Operation{FUSE_TMPFILE, tmpfile, size<fuse_create_in> + kName, kEntry + size<fuse_open_out>, kChanges},
};
static_assert(std::is_sorted(kOperations.begin(), kOperations.end(),
                             [](const Operation& a, const Operation& b) { return a.opcode < b.opcode; }));

}  // namespace

const Operation* find_operation(uint32_t opcode) {
  const auto* const found =
      std::lower_bound(kOperations.begin(), kOperations.end(), opcode,
                       [](const Operation& operation, uint32_t wanted) { return operation.opcode < wanted; });
  return found != kOperations.end() && found->opcode == opcode ? found : nullptr;
}

}  // namespace snug
