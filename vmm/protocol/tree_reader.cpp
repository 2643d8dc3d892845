#include "vmm/protocol/tree_reader.h"

#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "vmm/protocol/messages.h"

namespace snug::protocol {
namespace {

// Folders of the way down that are open at a time; those above are opened again by "..".
constexpr size_t kOpenFolders = 32;
constexpr size_t kMaxDepth = 64 * 1024;
// Of the paths of files with several names: beyond, their other names are copies.
constexpr size_t kLinkedBytes = size_t{32} << 20;
constexpr size_t kLongestLinked = 32 * 1024;

Entry entry_of(const struct stat& status, const std::string& name) {
  Entry entry;
  entry.mode = status.st_mode & 07777;
  entry.owner = status.st_uid;
  entry.group = status.st_gid;
  entry.mtime = status.st_mtim.tv_sec;
  entry.mtime_ns = static_cast<uint32_t>(status.st_mtim.tv_nsec);
  entry.name = name;
  return entry;
}

const char* kind_of(mode_t mode) {
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISBLK(mode) || S_ISCHR(mode)) return "a device";
  return "of a kind that cannot be copied";
}

}  // namespace

TreeReader::~TreeReader() {
  for (const Folder& folder : folders_) {
    if (folder.stream != nullptr)
      ::closedir(folder.stream);
    else if (folder.fd >= 0)
      ::close(folder.fd);
  }
  if (file_ >= 0) ::close(file_);
}

std::string TreeReader::shown(const std::string& name) const {
  std::string path = root_;
  for (const std::string* part : {&path_, &name})
    if (!part->empty()) path += (path.ends_with('/') ? "" : "/") + *part;
  return shown_path(path);
}

void TreeReader::problem(const std::string& path, int error_number) {
  problems_.push_back({false, printable(path + ": " + std::strerror(error_number))});
}

bool TreeReader::fail(const std::string& path, int error_number) {
  error_ = printable(path + ": " + std::strerror(error_number));
  return false;
}

bool TreeReader::open(const std::string& path) {
  root_ = path;
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return fail(shown_path(path), errno);
  // Whoever names a FIFO waits for its writer.
  const bool waits = S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | (waits ? 0 : O_NONBLOCK));
  if (fd < 0) return fail(shown_path(path), errno);
  if (::fstat(fd, &status) != 0) return fail(shown_path(path), errno);
  Entry entry = entry_of(status, "");
  if (!S_ISDIR(status.st_mode)) {
    if (!S_ISREG(status.st_mode)) entry.mode &= 0666;
    begin_file(fd, status, "", entry, first_);
    return true;
  }
  entry.kind = EntryKind::kFolder;
  if (!enter(fd, status, "")) return fail(shown_path(path), errno);
  put_entry(first_, entry);
  return true;
}

// One that lies in the folder that is being read, as it is: no link is followed.
void TreeReader::add(const std::string& name, std::string& out) {
  const int folder = folders_.back().fd;
  struct stat status {};
  if (::fstatat(folder, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return problem(shown(name), errno);
  Entry entry = entry_of(status, name);
  if (S_ISLNK(status.st_mode)) return add_link(name, entry, out);
  if (S_ISFIFO(status.st_mode)) {
    entry.kind = EntryKind::kFifo;
    return put_entry(out, entry);
  }
  if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) {
    problems_.push_back({true, printable(shown(name) + ": left out, being " + kind_of(status.st_mode))});
    return;
  }
  // Between the look and this another may have taken its place: what is open counts.
  const int fd = ::openat(folder, name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
  if (fd < 0) return problem(shown(name), errno);
  const bool seen = ::fstat(fd, &status) == 0;
  entry = entry_of(status, name);
  if (seen && S_ISREG(status.st_mode)) return begin_file(fd, status, name, entry, out);
  if (!seen || !S_ISDIR(status.st_mode)) {
    ::close(fd);
    return problem(shown(name), ESTALE);
  }
  if (!enter(fd, status, name)) return problem(shown(name), errno);
  entry.kind = EntryKind::kFolder;
  put_entry(out, entry);
}

void TreeReader::add_link(const std::string& name, Entry& entry, std::string& out) {
  entry.kind = EntryKind::kLink;
  entry.target.resize(PATH_MAX);
  const ssize_t length =
      ::readlinkat(folders_.back().fd, name.c_str(), entry.target.data(), entry.target.size());
  if (length <= 0) return problem(shown(name), length < 0 ? errno : EINVAL);
  entry.target.resize(static_cast<size_t>(length));
  put_entry(out, entry);
}

// Whether the file has been sent under another name.
bool TreeReader::link_to_earlier(const struct stat& status, const std::string& name, Entry& entry,
                                 std::string& out) {
  if (status.st_nlink < 2 || name.empty()) return false;
  const std::pair key(status.st_dev, status.st_ino);
  if (const auto earlier = linked_.find(key); earlier != linked_.end()) {
    entry.kind = EntryKind::kHardLink;
    entry.target = earlier->second;
    put_entry(out, entry);
    return true;
  }
  const std::string path = path_.empty() ? name : path_ + "/" + name;
  if (path.size() > kLongestLinked || linked_bytes_ > kLinkedBytes) return false;
  linked_bytes_ += path.size() + sizeof(Entry);
  linked_.emplace(key, path);
  return false;
}

void TreeReader::begin_file(int fd, const struct stat& status, const std::string& name, Entry& entry,
                            std::string& out) {
  if (link_to_earlier(status, name, entry, out)) {
    ::close(fd);
    return;
  }
  file_ = fd;
  file_path_ = shown(name);
  offset_ = data_end_ = 0;
  // Sizes of /proc and /sys say nothing; a file is read to its end, whatever they are.
  may_have_holes_ = S_ISREG(status.st_mode) && status.st_size > 0 &&
                    static_cast<uint64_t>(status.st_blocks) * 512 < static_cast<uint64_t>(status.st_size);
  put_entry(out, entry);
}

// Takes the descriptor. False: errno says why not.
bool TreeReader::enter(int fd, const struct stat& status, const std::string& name) {
  DIR* stream = folders_.size() < kMaxDepth ? ::fdopendir(fd) : nullptr;
  if (stream == nullptr) {
    const int error_number = folders_.size() < kMaxDepth ? errno : ELOOP;
    ::close(fd);
    errno = error_number;
    return false;
  }
  if (!name.empty()) path_ += (path_.empty() ? "" : "/") + name;
  folders_.push_back({fd, stream, {}, status.st_dev, status.st_ino, path_.size()});
  if (folders_.size() - first_open_ > kOpenFolders) stow(folders_[first_open_++]);
  return true;
}

// Closes it; what is left of its names is kept.
void TreeReader::stow(Folder& folder) {
  if (folder.stream != nullptr) {
    while (const dirent* found = ::readdir(folder.stream))
      folder.names.emplace_back(static_cast<const char*>(found->d_name));
    ::closedir(std::exchange(folder.stream, nullptr));
  } else {
    ::close(folder.fd);
  }
  folder.fd = -1;
}

// By its names from the root on, none of them a link; -1: not to be had.
int TreeReader::reopen(const Folder& folder) const {
  int fd = ::open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  for (size_t at = 0; fd >= 0 && at < folder.path_size;) {
    const size_t end = std::min(path_.find('/', at), folder.path_size);
    const int next =
        ::openat(fd, path_.substr(at, end - at).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    ::close(fd);
    fd = next;
    at = end + 1;
  }
  return fd;
}

// Back to the folder around the one that is done.
bool TreeReader::leave(std::string& out) {
  Folder done = std::move(folders_.back());
  folders_.pop_back();
  put_frame(out, FrameType::kLeave);
  bool found = true;
  if (!folders_.empty()) {
    Folder& above = folders_.back();
    if (above.fd < 0) {
      // One that was moved in the meantime has another folder around it, which is not to be copied; one that
      // was removed has none. The way down leads there still, unless it has been changed as well.
      const auto is_it = [&above] {
        struct stat status {};
        return above.fd >= 0 && ::fstat(above.fd, &status) == 0 && status.st_dev == above.device &&
               status.st_ino == above.inode;
      };
      above.fd = ::openat(done.fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      found = is_it();
      if (!found) {
        if (above.fd >= 0) ::close(above.fd);
        above.fd = reopen(above);
        found = is_it();
      }
      first_open_ = folders_.size() - 1;
    }
    path_.resize(above.path_size);
  }
  if (done.stream != nullptr)
    ::closedir(done.stream);
  else
    ::close(done.fd);
  if (!found) error_ = printable(shown("") + ": moved while it was copied");
  return found;
}

// False: there is none.
bool TreeReader::next_name(std::string& name) {
  Folder& folder = folders_.back();
  for (;;) {
    name.clear();
    if (folder.stream != nullptr) {
      errno = 0;
      const dirent* found = ::readdir(folder.stream);
      if (found != nullptr) name = static_cast<const char*>(found->d_name);
      if (found == nullptr && errno != 0) problem(shown(""), errno);
    } else if (!folder.names.empty()) {
      name = std::move(folder.names.back());
      folder.names.pop_back();
    }
    if (name.empty()) return false;
    if (name != "." && name != "..") return true;
  }
}

bool TreeReader::next(std::string& out) {
  if (!error_.empty() || done_) return false;
  out += first_;
  first_.clear();
  const size_t enough = out.size() + kDataChunk;
  std::string name;
  while (out.size() < enough && problems_.size() < 100) {
    if (file_ >= 0) {
      read_file(out);
    } else if (folders_.empty()) {
      put_frame(out, FrameType::kEnd, {}, kCopy);
      done_ = true;
      return true;
    } else if (next_name(name)) {
      add(name, out);
    } else if (!leave(out)) {
      return false;
    }
  }
  return true;
}

// Skips the hole at offset_. False: the file has ended.
bool TreeReader::find_data(std::string& out) {
  struct stat status {};
  off_t data = ::lseek(file_, static_cast<off_t>(offset_), SEEK_DATA);
  const bool rest_is_hole = data < 0 && errno == ENXIO;
  if (rest_is_hole && ::fstat(file_, &status) == 0) data = status.st_size;
  if (data < 0) {
    // A file system that does not tell.
    may_have_holes_ = false;
    return ::lseek(file_, static_cast<off_t>(offset_), SEEK_SET) >= 0;
  }
  if (static_cast<uint64_t>(data) > offset_) {
    put_hole(out, static_cast<uint64_t>(data) - offset_);
    offset_ = static_cast<uint64_t>(data);
  }
  if (rest_is_hole) return false;
  const off_t end = ::lseek(file_, data, SEEK_HOLE);
  if (end <= data || ::lseek(file_, data, SEEK_SET) < 0) return false;
  data_end_ = static_cast<uint64_t>(end);
  return true;
}

void TreeReader::read_file(std::string& out) {
  if (may_have_holes_ && offset_ == data_end_ && !find_data(out)) return end_file(true, out);
  size_t most = kDataChunk;
  if (may_have_holes_) most = std::min<uint64_t>(most, data_end_ - offset_);
  std::string buffer(most, '\0');
  ssize_t count;
  do count = ::read(file_, buffer.data(), buffer.size());
  while (count < 0 && errno == EINTR);
  if (count < 0) {
    problem(file_path_, errno);
    return end_file(false, out);
  }
  // One that became shorter while it was read ends where it ends.
  if (count == 0) return end_file(true, out);
  put_frame(out, FrameType::kData, {buffer.data(), static_cast<size_t>(count)}, kCopy);
  offset_ += static_cast<uint64_t>(count);
}

void TreeReader::end_file(bool whole, std::string& out) {
  ::close(file_);
  file_ = -1;
  put_file_end(out, whole);
}

}  // namespace snug::protocol
