#include "vmm/shares/host_files.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include <charconv>
#include <functional>

namespace snug {
namespace {

constexpr int kLookFlags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
constexpr unsigned kStatusFields = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID;

}  // namespace

uint64_t nanoseconds(const statx_timestamp& time) {
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

uint64_t birth_of(const FileStatus& status) {
  return (status.stx_mask & STATX_BTIME) != 0 ? nanoseconds(status.stx_btime) : 0;
}

bool is_same_file(const FileStatus& one, const FileStatus& other) {
  return one.stx_ino == other.stx_ino && device_of(one) == device_of(other) &&
         one.stx_mnt_id == other.stx_mnt_id && birth_of(one) == birth_of(other);
}

uint32_t device_number(uint32_t major, uint32_t minor) {
  return (minor & 0xff) | (major << 8) | ((minor & ~0xffu) << 12);
}

FdName::FdName(int fd) { *std::to_chars(text_, text_ + sizeof text_ - 1, fd).ptr = '\0'; }

HostFiles::HostFiles(UniqueFd proc_self_fd, const ShareOptions& options)
    : proc_self_fd_(std::move(proc_self_fd)),
      submounts_(options.submounts),
      closed_folder_(options.closed_folder),
      openat2_(options.resolver != ShareResolver::kOpenat),
      openat_(options.resolver != ShareResolver::kOpenat2) {}

void HostFiles::set_root(const FileStatus& root) {
  root_device_ = device_of(root);
  root_mount_ = root.stx_mnt_id;
  struct stat here {};
  struct stat own {};
  is_at_own_files_ = ::fstatat(AT_FDCWD, ".", &here, 0) == 0 && ::fstat(proc_self_fd_.get(), &own) == 0 &&
                     here.st_dev == own.st_dev && here.st_ino == own.st_ino;
  if (!openat2_ || !openat_) return;
  // Some containers refuse openat2 by EPERM, which is nothing that opening our own folder would bring.
  open_how how{.flags = kLookFlags, .mode = 0, .resolve = RESOLVE_BENEATH};
  const UniqueFd tried(static_cast<int>(::syscall(SYS_openat2, proc_self_fd_.get(), ".", &how, sizeof how)));
  openat2_ = static_cast<bool>(tried) || (errno != ENOSYS && errno != EPERM);
}

Outcome<FileStatus> HostFiles::status(int fd) const {
  FileStatus status;
  if (::statx(fd, "", AT_EMPTY_PATH | AT_STATX_SYNC_AS_STAT, kStatusFields, &status) != 0)
    return refuse(errno);
  if ((status.stx_mask & STATX_MNT_ID) == 0) status.stx_mnt_id = 0;
  return status;
}

UniqueFd HostFiles::open_below(int folder, const char* name) const {
  if (!openat2_) return UniqueFd(::openat(folder, name, kLookFlags));
  open_how how{.flags = kLookFlags,
               .mode = 0,
               .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS};
  if (!submounts_) how.resolve |= RESOLVE_NO_XDEV;
  return UniqueFd(static_cast<int>(::syscall(SYS_openat2, folder, name, &how, sizeof how)));
}

// openat2 has seen to it already; a second look costs nothing. Devices say less than mounts: a bind mount has
// that of its source, and a subvolume of btrfs one of its own.
bool HostFiles::is_elsewhere(const FileStatus& status) const {
  if (root_mount_ != 0 && status.stx_mnt_id != 0) return status.stx_mnt_id != root_mount_;
  return device_of(status) != root_device_;
}

Outcome<HostFiles::Found> HostFiles::look_up(int folder, const std::string& name) const {
  Found found{open_below(folder, name.c_str()), {}};
  if (!found.fd && errno != EXDEV) return refuse(errno);
  if (!found.fd) return closed_mount(folder, name);
  found.status = SNUG_TRY(status(found.fd.get()));
  if (!submounts_ && is_elsewhere(found.status)) return closed_mount(folder, name);
  return found;
}

// All of them are one folder on the host. In the guest each needs a number, or the folder would be in several
// places there.
Outcome<HostFiles::Found> HostFiles::closed_mount(int folder, const std::string& name) const {
  if (closed_folder_ < 0) return refuse(EXDEV);
  const auto above = SNUG_TRY(status(folder));
  Found found{UniqueFd(::openat(closed_folder_, ".", kLookFlags | O_DIRECTORY)), {}};
  if (!found.fd) return refuse(errno);
  found.status = SNUG_TRY(status(found.fd.get()));
  found.status.stx_ino = std::hash<std::string>()(name) ^ (above.stx_ino << 32 | above.stx_ino >> 32);
  return found;
}

Outcome<UniqueFd> HostFiles::reopen(int fd, int flags) const {
  UniqueFd opened(::openat(proc_self_fd_.get(), FdName(fd).text(), flags | O_CLOEXEC | O_NOCTTY));
  if (!opened) return refuse(errno);
  return opened;
}

Outcome<size_t> HostFiles::xattr(int fd, const char* name, std::span<char> value) const {
  ssize_t length;
  if (is_at_own_files_) {
    length = ::getxattr(FdName(fd).text(), name, value.data(), value.size());
  } else {
    const auto opened = SNUG_TRY(reopen(fd, O_RDONLY));
    length = ::fgetxattr(opened.get(), name, value.data(), value.size());
  }
  if (length < 0) return refuse(errno);
  return static_cast<size_t>(length);
}

}  // namespace snug
