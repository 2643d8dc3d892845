#include "vmm/protocol/tree_file.h"

#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

namespace snug::protocol {
namespace {

std::string temporary_name() {
  uint64_t number = static_cast<uint64_t>(::getpid());
  // Early in a guest's life there may be none; the name is made with O_EXCL all the same.
  (void)!::getrandom(&number, sizeof number, GRND_NONBLOCK);
  return ".snug-cp-" + std::to_string(number);
}

std::string path_of(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

bool is_same(const struct stat& left, const struct stat& right) {
  return left.st_dev == right.st_dev && left.st_ino == right.st_ino;
}

}  // namespace

bool set_attributes(int fd, const Entry& entry, bool owners) {
  const timespec times[] = {{0, UTIME_OMIT}, {entry.mtime, static_cast<long>(entry.mtime_ns)}};
  // The mode follows the owner: a change of owner takes setuid and setgid away.
  bool kept = !owners || ::fchown(fd, entry.owner, entry.group) == 0;
  int error_number = errno;
  if (::fchmod(fd, entry.mode) != 0 && std::exchange(kept, false)) error_number = errno;
  if (::futimens(fd, static_cast<const timespec*>(times)) != 0 && std::exchange(kept, false))
    error_number = errno;
  errno = error_number;
  return kept;
}

bool clear_way(int folder, const std::string& name) {
  struct stat status {};
  if (::fstatat(folder, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return errno == ENOENT;
  if (S_ISREG(status.st_mode) || S_ISLNK(status.st_mode)) return ::unlinkat(folder, name.c_str(), 0) == 0;
  errno = S_ISDIR(status.st_mode) ? EISDIR : EEXIST;
  return false;
}

bool TreeFile::fail(int error_number, const char* why) {
  error_ = error_number;
  why_ = why;
  return false;
}

std::string TreeFile::reason() const { return why_ != nullptr ? why_ : std::strerror(error_); }

bool TreeFile::open(int folder, const std::string& name, Way way, Target target) {
  discard();
  folder_ = folder;
  name_ = name;
  offset_ = 0;
  ends_in_hole_ = false;
  kept_ = true;
  error_ = 0;
  struct stat status {};
  const int flags = way == Way::kNamed ? 0 : AT_SYMLINK_NOFOLLOW;
  if (::fstatat(folder, name.c_str(), &status, flags) != 0) {
    if (errno != ENOENT) return fail(errno);
    if (way == Way::kNamed && ::fstatat(folder, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0)
      return fail(ENOENT, "a link to nothing");
    return create();
  }
  if (S_ISDIR(status.st_mode)) return fail(EISDIR);
  if (S_ISLNK(status.st_mode) || target == Target::kReplaced) return create();
  return open_there(status, way);
}

bool TreeFile::open_there(const struct stat& status, Way way) {
  plain_ = S_ISREG(status.st_mode);
  if (!plain_ && way == Way::kFound) return fail(EEXIST, "neither file, folder nor link: left as it is");
  const int flags = O_WRONLY | O_CLOEXEC | O_NOCTTY | (way == Way::kFound ? O_NOFOLLOW | O_NONBLOCK : 0);
  fd_ = ::openat(folder_, name_.c_str(), flags);
  struct stat opened {};
  if (fd_ < 0) {
    const int error_number = errno;
    // What runs or is not to be written gives way, unless the name is that of a link to it.
    const bool gives_way = plain_ && (error_number == ETXTBSY || error_number == EACCES);
    if (gives_way && ::fstatat(folder_, name_.c_str(), &opened, AT_SYMLINK_NOFOLLOW) == 0 &&
        is_same(opened, status))
      return create();
    return fail(error_number);
  }
  is_new_ = false;
  if (::fstat(fd_, &opened) != 0 || S_ISREG(opened.st_mode) != plain_) return fail(ESTALE);
  return !plain_ || ::ftruncate(fd_, 0) == 0 || fail(errno);
}

bool TreeFile::create() {
  is_new_ = plain_ = true;
  temporary_.clear();
  // Without a name: it is gone with us, however we end.
  fd_ = ::openat(folder_, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
  if (fd_ >= 0) return true;
  temporary_ = temporary_name();
  fd_ = ::openat(folder_, temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  return fd_ >= 0 || fail(errno);
}

bool TreeFile::write(std::string_view bytes) {
  ends_in_hole_ = false;
  if (bytes.size() > std::numeric_limits<int64_t>::max() - offset_) return fail(EFBIG);
  while (!bytes.empty()) {
    const ssize_t count = plain_ ? ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset_))
                                 : ::write(fd_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail(errno);
    offset_ += static_cast<uint64_t>(count);
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return true;
}

bool TreeFile::hole(uint64_t length) {
  if (length > std::numeric_limits<int64_t>::max() - offset_) return fail(EFBIG);
  if (plain_) {
    offset_ += length;
    ends_in_hole_ = true;
    return true;
  }
  // Devices and FIFOs have no holes.
  const std::string zeros(std::min<uint64_t>(length, kDataChunk), '\0');
  while (length > 0) {
    const size_t count = std::min<uint64_t>(length, zeros.size());
    if (!write({zeros.data(), count})) return false;
    length -= count;
  }
  return true;
}

bool TreeFile::finish(const Entry& entry, bool owners) {
  if (ends_in_hole_ && ::ftruncate(fd_, static_cast<off_t>(offset_)) != 0) return fail(errno);
  if (plain_) keep(entry, owners);
  if (is_new_ && !give_name()) return false;
  temporary_.clear();
  return ::close(std::exchange(fd_, -1)) == 0 || fail(errno);
}

void TreeFile::keep(const Entry& entry, bool owners) {
  if (is_new_ || owners) {
    kept_ = set_attributes(fd_, entry, owners);
    return;
  }
  // Its mode is its own, and so is the time if it belongs to somebody else.
  const timespec times[] = {{0, UTIME_OMIT}, {entry.mtime, static_cast<long>(entry.mtime_ns)}};
  ::futimens(fd_, static_cast<const timespec*>(times));
}

// In place of what has the name now, if that is no folder.
bool TreeFile::give_name() {
  if (temporary_.empty()) {
    const auto link = [this](const std::string& name) {
      return ::linkat(AT_FDCWD, path_of(fd_).c_str(), folder_, name.c_str(), AT_SYMLINK_FOLLOW) == 0 ||
             (errno != EEXIST && ::linkat(fd_, "", folder_, name.c_str(), AT_EMPTY_PATH) == 0);
    };
    if (link(name_)) return true;
    if (errno != EEXIST) return fail(errno);
    const std::string other = temporary_name();
    if (!link(other)) return fail(errno);
    temporary_ = other;
  }
  return ::renameat(folder_, temporary_.c_str(), folder_, name_.c_str()) == 0 || fail(errno);
}

void TreeFile::discard() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  if (!temporary_.empty()) ::unlinkat(folder_, std::exchange(temporary_, {}).c_str(), 0);
}

}  // namespace snug::protocol
