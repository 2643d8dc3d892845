#include "vmm/protocol/tree_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "vmm/protocol/messages.h"

namespace snug::protocol {
namespace {

using Way = TreeFile::Way;

bool is_full(int error_number) { return error_number == ENOSPC || error_number == EDQUOT; }

// Where a path's last part begins.
size_t last_part(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? 0 : slash + 1;
}

}  // namespace

TreeWriter::TreeWriter(std::string destination, std::string name, Owners owners, Sender sender)
    : destination_(std::move(destination)),
      name_(std::move(name)),
      owners_(owners == Owners::kKept),
      hostile_(sender == Sender::kGuest) {}

// A copy cut short leaves no folders behind that only their owner may enter.
TreeWriter::~TreeWriter() {
  file_.discard();
  for (auto folder = folders_.rbegin(); folder != folders_.rend(); ++folder) {
    if (folder->fd < 0) continue;
    if (folder->made) set_attributes(folder->fd, folder->entry, owners_);
    ::close(folder->fd);
  }
  if (parent_ >= 0) ::close(parent_);
  if (root_ >= 0) ::close(root_);
}

std::string TreeWriter::shown(const std::string& name) const {
  std::string path = destination_;
  for (const std::string* part : {&path_, &name})
    if (!part->empty()) path += (path.ends_with('/') ? "" : "/") + *part;
  return shown_path(path);
}

bool TreeWriter::fail(const std::string& path, const std::string& reason) {
  error_ = printable(path + ": " + reason);
  return false;
}

// What is copied as a whole cannot be: the copy fails. With a full disk, so would all that follows.
bool TreeWriter::problem(const std::string& path, int error_number, const std::string& reason) {
  if (folders_.empty() || is_full(error_number)) return fail(path, reason);
  problems_.push_back({false, printable(path + ": " + reason)});
  return true;
}

bool TreeWriter::problem(const Entry& entry, int error_number) {
  return problem(shown(entry.name), error_number, std::strerror(error_number));
}

void TreeWriter::note_not_kept(const std::string& path) {
  problems_.push_back({false, printable(path + ": copied, but its mode, time or owner could not be kept")});
}

bool TreeWriter::take(const Frame& frame) {
  if (done_ || !error_.empty()) return false;
  if (in_file_) {
    if (frame.type == FrameType::kFileEnd) return end_file(frame);
    if (frame.type == FrameType::kData || frame.type == FrameType::kHole) return content(frame);
  } else if (frame.type == FrameType::kEntry) {
    if (const auto entry = decode_entry(frame.payload)) return begin(*entry);
  } else if (frame.type == FrameType::kLeave && frame.payload.empty()) {
    if (skipped_ > 0 || !folders_.empty()) return leave();
  } else if (frame.type == FrameType::kEnd && frame.channel == kCopy && begun_ && folders_.empty()) {
    done_ = true;
    return false;
  }
  error_ = "a copy that cannot be";
  return false;
}

bool TreeWriter::begin(const Entry& entry) {
  const bool may_be_root = entry.kind == EntryKind::kFile || entry.kind == EntryKind::kFolder;
  if (!begun_ && entry.name.empty() && may_be_root) {
    begun_ = true;
    return begin_root(entry);
  }
  if (!begun_ || entry.name.empty() || folders_.empty()) return fail(destination_, std::strerror(EPROTO));
  if (skipped_ > 0) {
    if (entry.kind == EntryKind::kFolder) ++skipped_;
    in_file_ = entry.kind == EntryKind::kFile;
    return true;
  }
  switch (entry.kind) {
    case EntryKind::kFile:
      return begin_file(folders_.back().fd, entry.name, entry, Way::kFound);
    case EntryKind::kFolder:
      return begin_folder(entry);
    case EntryKind::kLink:
      return make_link(entry);
    case EntryKind::kFifo:
      return make_fifo(entry);
    case EntryKind::kHardLink:
      break;
  }
  return make_hard_link(entry);
}

bool TreeWriter::begin_root(const Entry& entry) {
  struct stat status {};
  const bool there = ::stat(destination_.c_str(), &status) == 0;
  const bool into = there && S_ISDIR(status.st_mode);
  const bool is_folder = entry.kind == EntryKind::kFolder;
  if (into && name_.empty()) {
    if (!is_folder) return fail(destination_, std::strerror(EISDIR));
    parent_ = ::open(destination_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    return (parent_ >= 0 && enter(parent_, ".", entry)) || fail(destination_, std::strerror(errno));
  }
  if (into) {
    if (parts_of(name_).size() != 1) return fail(destination_, std::strerror(EINVAL));
    destination_ += (destination_.ends_with('/') ? "" : "/") + name_;
  } else if (destination_.ends_with('/')) {
    if (there || !is_folder) return fail(destination_, std::strerror(ENOTDIR));
    while (destination_.size() > 1 && destination_.ends_with('/')) destination_.pop_back();
  }
  const size_t last = last_part(destination_);
  const std::string around = last == 0 ? "." : destination_.substr(0, last);
  parent_ = ::open(around.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (parent_ < 0) return fail(shown_path(destination_), std::strerror(errno));
  const std::string name = destination_.substr(last);
  if (is_folder) return enter(parent_, name, entry) || fail(shown_path(destination_), std::strerror(errno));
  // Only the folder was the user's word: a guest may have left a link or a FIFO there by an earlier copy.
  if (into && hostile_ && ::fstatat(parent_, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
      !S_ISREG(status.st_mode))
    return fail(shown_path(destination_), "not a plain file: give its whole path to write into it");
  return begin_file(parent_, name, entry, Way::kNamed);
}

bool TreeWriter::begin_file(int folder, const std::string& name, const Entry& entry, Way way) {
  in_file_ = true;
  entry_ = entry;
  file_path_ = shown(entry.name);
  struct stat status {};
  auto target = TreeFile::Target::kThere;
  if (way == Way::kFound && ::fstatat(folder, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
      S_ISREG(status.st_mode) && status.st_nlink > 1) {
    const std::pair key(status.st_dev, status.st_ino);
    const auto at = std::lower_bound(shared_.begin(), shared_.end(), key);
    if (at != shared_.end() && *at == key)
      target = TreeFile::Target::kReplaced;
    else
      shared_.insert(at, key);
  }
  if (file_.open(folder, name, way, target)) return true;
  file_.discard();
  return problem(file_path_, file_.error_number(), file_.reason());
}

bool TreeWriter::content(const Frame& frame) {
  const auto length = protocol::decode_number64(frame.payload);
  const bool is_hole = frame.type == FrameType::kHole;
  if (is_hole ? !length || *length == 0 : frame.channel != kCopy || frame.payload.empty())
    return fail(destination_, std::strerror(EPROTO));
  if (!file_.is_open()) return true;
  if (is_hole ? file_.hole(*length) : file_.write(frame.payload)) return true;
  file_.discard();
  return problem(file_path_, file_.error_number(), file_.reason());
}

bool TreeWriter::end_file(const Frame& frame) {
  const auto whole = decode_file_end(frame.payload);
  if (!whole) return fail(destination_, std::strerror(EPROTO));
  in_file_ = false;
  if (!file_.is_open()) return true;
  const bool good = !*whole || file_.finish(entry_, owners_);
  file_.discard();
  if (good && !file_.kept()) note_not_kept(file_path_);
  return good || problem(file_path_, file_.error_number(), file_.reason());
}

bool TreeWriter::begin_folder(const Entry& entry) {
  if (enter(folders_.back().fd, entry.name, entry)) return true;
  skipped_ = 1;
  return problem(entry, errno);
}

// A folder that is there is filled, and keeps its mode and time. Until one that is made is complete, its
// owner can write to it. False: errno.
bool TreeWriter::enter(int folder, const std::string& name, const Entry& entry) {
  constexpr size_t kOpenFolders = 32;
  constexpr size_t kMaxDepth = 64 * 1024;
  if (folders_.size() >= kMaxDepth) return errno = ELOOP, false;
  const bool made = ::mkdirat(folder, name.c_str(), 0700) == 0;
  if (!made && errno != EEXIST) return false;
  const int access = made ? O_RDONLY : O_PATH;
  const int fd = ::openat(folder, name.c_str(), access | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  struct stat status {};
  if (fd < 0 || ::fstat(fd, &status) != 0) return false;
  if (folders_.empty()) root_ = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (!entry.name.empty()) path_ += (path_.empty() ? "" : "/") + entry.name;
  folders_.push_back({fd, made, entry, status.st_dev, status.st_ino, path_.size()});
  if (folders_.size() - first_open_ > kOpenFolders) ::close(std::exchange(folders_[first_open_++].fd, -1));
  return true;
}

// The folder is complete: now it gets its mode, which may be one that lets nobody write, and its time.
bool TreeWriter::leave() {
  if (skipped_ > 0) return --skipped_, true;
  const Folder done = std::move(folders_.back());
  bool found = true;
  if (folders_.size() > 1 && folders_[folders_.size() - 2].fd < 0) {
    Folder& above = folders_[folders_.size() - 2];
    struct stat status {};
    above.fd = ::openat(done.fd, "..", (above.made ? O_RDONLY : O_PATH) | O_DIRECTORY | O_CLOEXEC);
    // One that was moved in the meantime has another folder around it.
    found = above.fd >= 0 && ::fstat(above.fd, &status) == 0 && status.st_dev == above.device &&
            status.st_ino == above.inode;
    first_open_ = folders_.size() - 2;
  }
  const std::string path = shown("");
  if (done.made && !set_attributes(done.fd, done.entry, owners_)) note_not_kept(path);
  ::close(done.fd);
  folders_.pop_back();
  if (!folders_.empty()) path_.resize(folders_.back().path_size);
  return found || fail(path, "moved while it was copied");
}

bool TreeWriter::make_link(const Entry& entry) {
  const int folder = folders_.back().fd;
  const bool made =
      clear_way(folder, entry.name) && ::symlinkat(entry.target.c_str(), folder, entry.name.c_str()) == 0;
  return finish_entry(entry, made);
}

bool TreeWriter::make_fifo(const Entry& entry) {
  const int folder = folders_.back().fd;
  struct stat status {};
  if (::fstatat(folder, entry.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISFIFO(status.st_mode))
    return true;
  const bool made = clear_way(folder, entry.name) &&
                    ::mkfifoat(folder, entry.name.c_str(), entry.mode & 0777) == 0 &&
                    ::fchmodat(folder, entry.name.c_str(), entry.mode, 0) == 0;
  return finish_entry(entry, made);
}

// Of what is not open. `made`: else errno says why not.
bool TreeWriter::finish_entry(const Entry& entry, bool made) {
  if (!made) return problem(entry, errno);
  const int folder = folders_.back().fd;
  const timespec times[] = {{0, UTIME_OMIT}, {entry.mtime, static_cast<long>(entry.mtime_ns)}};
  const char* name = entry.name.c_str();
  bool kept = !owners_ || ::fchownat(folder, name, entry.owner, entry.group, AT_SYMLINK_NOFOLLOW) == 0;
  kept = ::utimensat(folder, name, static_cast<const timespec*>(times), AT_SYMLINK_NOFOLLOW) == 0 && kept;
  if (!kept) note_not_kept(shown(entry.name));
  return true;
}

bool TreeWriter::make_hard_link(const Entry& entry) {
  const std::vector<std::string> parts = parts_of(entry.target);
  const int source = find_folder(parts);
  if (source < 0) return problem(entry, errno);
  const int folder = folders_.back().fd;
  const char* name = entry.name.c_str();
  struct stat status {
  }, there{};
  const char* first = parts.back().c_str();
  int error_number = 0;
  if (::fstatat(source, first, &status, AT_SYMLINK_NOFOLLOW) != 0) {
    error_number = errno;
  } else if (!S_ISREG(status.st_mode)) {
    error_number = EPROTO;
  } else if (::fstatat(folder, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && there.st_dev == status.st_dev &&
             there.st_ino == status.st_ino) {
    error_number = 0;
  } else if (!clear_way(folder, entry.name) || ::linkat(source, first, folder, name, 0) != 0) {
    error_number = errno;
    // A file system that has no links, or not that many.
    if (error_number == EPERM || error_number == EMLINK || error_number == EXDEV ||
        error_number == EOPNOTSUPP)
      error_number = copy_of(source, parts.back(), entry) ? 0 : errno;
  }
  ::close(source);
  return error_number == 0 || problem(entry, error_number);
}

// The folder that holds the last of `parts`, from the root down without any link. -1: errno.
int TreeWriter::find_folder(const std::vector<std::string>& parts) const {
  int folder = ::openat(root_, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
  for (size_t i = 0; folder >= 0 && i + 1 < parts.size(); ++i) {
    const int next = ::openat(folder, parts[i].c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    const int error_number = errno;
    ::close(folder);
    errno = error_number;
    folder = next;
  }
  return folder;
}

// Instead of a link. False: errno.
bool TreeWriter::copy_of(int folder, const std::string& name, const Entry& entry) {
  const int fd = ::openat(folder, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return false;
  TreeFile file;
  std::string buffer(kDataChunk, '\0');
  bool good = file.open(folders_.back().fd, entry.name, Way::kFound, TreeFile::Target::kReplaced);
  ssize_t count = 0;
  while (good && (count = ::read(fd, buffer.data(), buffer.size())) > 0)
    good = file.write({buffer.data(), static_cast<size_t>(count)});
  good = good && count == 0 && file.finish(entry, owners_);
  ::close(fd);
  errno = file.error_number() != 0 ? file.error_number() : EIO;
  return good;
}

}  // namespace snug::protocol
