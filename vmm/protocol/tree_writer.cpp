#include "vmm/protocol/tree_writer.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace snug::protocol {
namespace {

// A folder below another, without any link on the way.
int open_below(int root, const std::string& path, int access = O_PATH) {
  open_how how{};
  how.flags = static_cast<uint64_t>(access | O_DIRECTORY | O_CLOEXEC);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return static_cast<int>(::syscall(SYS_openat2, root, path.empty() ? "." : path.c_str(), &how, sizeof how));
}

bool lies_in(const std::string& path, const std::string& folder) {
  return folder.empty() ||
         (path.size() > folder.size() && path.starts_with(folder) && path[folder.size()] == '/');
}

// What cannot be kept there is not.
void set_mode_and_time(int fd, const Entry& entry) {
  const timespec times[] = {{entry.mtime, 0}, {entry.mtime, 0}};
  ::fchmod(fd, entry.mode);
  ::futimens(fd, static_cast<const timespec*>(times));
}

}  // namespace

TreeWriter::TreeWriter(std::string destination, std::string name)
    : destination_(std::move(destination)), name_(std::move(name)) {}

TreeWriter::~TreeWriter() {
  if (root_ >= 0) ::close(root_);
  if (file_ >= 0) ::close(file_);
}

bool TreeWriter::fail(const std::string& what, int error_number) {
  error_ = what + ": " + std::strerror(error_number);
  return false;
}

bool TreeWriter::take(const Frame& frame) {
  if (done_ || !error_.empty()) return false;
  const bool in_file = file_ >= 0;
  if (frame.type == FrameType::kData && frame.channel == kCopy && in_file) return write(frame.payload);
  if (frame.type == FrameType::kEntry && !in_file) {
    const auto entry = decode_entry(frame.payload);
    if (entry) return begin(*entry);
  }
  if (frame.type == FrameType::kEnd && frame.channel == kCopy && begun_ && !in_file) {
    leave_folders(nullptr);
    done_ = true;
    return false;
  }
  error_ = "a copy that cannot be";
  return false;
}

bool TreeWriter::begin(const Entry& entry) {
  if (!begun_) {
    begun_ = true;
    if (!entry.path.empty()) return fail(destination_, EPROTO);
    return begin_root(entry);
  }
  if (root_ < 0 || entry.path.empty()) return fail(destination_, EPROTO);
  leave_folders(&entry.path);
  const size_t slash = entry.path.rfind('/');
  const bool deep = slash != std::string::npos;
  const int folder = open_below(root_, deep ? entry.path.substr(0, slash) : "");
  if (folder < 0) return fail(destination_ + "/" + entry.path, errno);
  const bool made = make(folder, deep ? entry.path.substr(slash + 1) : entry.path, entry);
  ::close(folder);
  return made;
}

bool TreeWriter::begin_root(const Entry& entry) {
  struct stat status {};
  if (::stat(destination_.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) {
    if (name_.empty() || name_ == "." || name_ == ".." || name_.find('/') != std::string::npos)
      return fail(destination_ + "/" + name_, EINVAL);
    destination_ += "/" + name_;
  } else if (destination_.ends_with('/')) {
    return fail(destination_, ENOTDIR);
  }
  if (entry.kind != EntryKind::kFolder) return make(AT_FDCWD, destination_, entry);
  const bool made = ::mkdir(destination_.c_str(), 0700) == 0;
  if (!made && errno != EEXIST) return fail(destination_, errno);
  if (made) folders_.push_back(entry);
  root_ = ::open(destination_.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  return root_ >= 0 || fail(destination_, errno);
}

// Those in which the next entry does not lie are complete: now they get their mode, which may be one that
// lets nobody write, and their time. Without a next one, all are.
void TreeWriter::leave_folders(const std::string* next) {
  while (!folders_.empty() && (next == nullptr || !lies_in(*next, folders_.back().path))) {
    const int fd = open_below(root_, folders_.back().path, O_RDONLY);
    if (fd >= 0) {
      set_mode_and_time(fd, folders_.back());
      ::close(fd);
    }
    folders_.pop_back();
  }
}

// What has that name already gives way, unless it is a folder.
bool TreeWriter::make(int folder, const std::string& name, const Entry& entry) {
  const std::string shown = entry.path.empty() ? destination_ : destination_ + "/" + entry.path;
  if (entry.kind == EntryKind::kFolder) {
    if (::mkdirat(folder, name.c_str(), 0700) == 0) {
      folders_.push_back(entry);
      return true;
    }
    struct stat status {};
    const int error_number = errno;
    const bool there = ::fstatat(folder, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0;
    return (error_number == EEXIST && there && S_ISDIR(status.st_mode)) || fail(shown, error_number);
  }
  if (::unlinkat(folder, name.c_str(), 0) != 0 && errno != ENOENT) return fail(shown, errno);
  if (entry.kind == EntryKind::kLink)
    return ::symlinkat(entry.target.c_str(), folder, name.c_str()) == 0 || fail(shown, errno);
  file_ = ::openat(folder, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (file_ < 0) return fail(shown, errno);
  entry_ = entry;
  left_ = entry.size;
  return left_ > 0 || end_file();
}

bool TreeWriter::write(std::string_view bytes) {
  if (bytes.empty() || bytes.size() > left_) return fail(destination_, EPROTO);
  left_ -= bytes.size();
  while (!bytes.empty()) {
    const ssize_t count = ::write(file_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail(destination_ + (entry_.path.empty() ? "" : "/" + entry_.path), errno);
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return left_ > 0 || end_file();
}

bool TreeWriter::end_file() {
  set_mode_and_time(file_, entry_);
  const int result = ::close(file_);
  file_ = -1;
  return result == 0 || fail(destination_, errno);
}

}  // namespace snug::protocol
