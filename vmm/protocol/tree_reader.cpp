#include "vmm/protocol/tree_reader.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace snug::protocol {
namespace {

constexpr size_t kMaxPath = 4095;

// Neither empty nor "." nor ".." between any two slashes.
bool stays_below(std::string_view path) {
  if (path.empty()) return true;
  if (path.size() > kMaxPath || path.find('\0') != std::string_view::npos) return false;
  for (;;) {
    const size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (part.empty() || part == "." || part == ".." || part.size() > NAME_MAX) return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
}

}  // namespace

void put_entry(std::string& out, const Entry& entry) {
  Encoder payload;
  payload.u8(static_cast<uint8_t>(entry.kind)).u32(entry.mode & 0777).u64(entry.size);
  payload.u64(static_cast<uint64_t>(entry.mtime)).text(entry.path).text(entry.target);
  put_frame(out, FrameType::kEntry, payload.bytes());
}

std::optional<Entry> decode_entry(std::string_view payload) {
  Decoder decoder(payload);
  Entry entry;
  const uint8_t kind = decoder.u8();
  entry.kind = static_cast<EntryKind>(kind);
  entry.mode = decoder.u32() & 0777;
  entry.size = decoder.u64();
  entry.mtime = static_cast<int64_t>(decoder.u64());
  entry.path = decoder.text();
  entry.target = decoder.text();
  const bool is_link = entry.kind == EntryKind::kLink;
  if (!decoder.complete() || kind < 1 || kind > 3 || !stays_below(entry.path)) return std::nullopt;
  if (is_link != !entry.target.empty() || entry.target.size() > kMaxPath) return std::nullopt;
  if (entry.target.find('\0') != std::string::npos) return std::nullopt;
  if (entry.kind != EntryKind::kFile && entry.size != 0) return std::nullopt;
  return entry;
}

TreeReader::~TreeReader() {
  for (const Folder& folder : folders_) ::closedir(folder.stream);
  if (file_ >= 0) ::close(file_);
}

bool TreeReader::fail(const std::string& what, int error_number) {
  error_ = what + ": " + std::strerror(error_number);
  return false;
}

bool TreeReader::open(const std::string& path) {
  root_ = path;
  // What is named is meant, through whatever links; what lies in it is taken as it is.
  return begin(AT_FDCWD, path.c_str(), "", true, first_);
}

bool TreeReader::begin(int folder, const char* name, const std::string& path, bool follow, std::string& out) {
  const std::string shown = path.empty() ? root_ : root_ + "/" + path;
  struct stat status {};
  if (::fstatat(folder, name, &status, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0) return fail(shown, errno);
  Entry entry;
  entry.mode = status.st_mode & 0777;
  entry.mtime = status.st_mtim.tv_sec;
  entry.path = path;
  if (S_ISLNK(status.st_mode)) {
    entry.kind = EntryKind::kLink;
    entry.target.resize(kMaxPath);
    const ssize_t length = ::readlinkat(folder, name, entry.target.data(), entry.target.size());
    if (length < 0) return fail(shown, errno);
    entry.target.resize(static_cast<size_t>(length));
    put_entry(out, entry);
    return true;
  }
  if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) {
    if (path.empty()) return fail(shown, EINVAL);
    ++skipped_;
    return true;
  }
  // Between the look and this another may have taken its place: what is open counts.
  const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (follow ? 0 : O_NOFOLLOW);
  const int fd = ::openat(folder, name, flags);
  if (fd < 0) return fail(shown, errno);
  if (::fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
    entry.size = static_cast<uint64_t>(status.st_size);
    file_ = fd;
    left_ = entry.size;
    file_path_ = shown;
    put_entry(out, entry);
    return true;
  }
  entry.kind = EntryKind::kFolder;
  DIR* stream = ::fdopendir(fd);
  if (stream == nullptr) {
    const int error_number = errno;
    ::close(fd);
    return fail(shown, error_number);
  }
  folders_.push_back({stream, path});
  if (folders_.size() > kMaxDepth) return fail(shown, ELOOP);
  put_entry(out, entry);
  return true;
}

bool TreeReader::next(std::string& out) {
  if (!error_.empty() || done_) return false;
  out += first_;
  first_.clear();
  const size_t enough = out.size() + kDataChunk;
  while (out.size() < enough) {
    if (file_ >= 0) {
      if (!read_file(out)) return false;
      continue;
    }
    if (folders_.empty()) {
      put_frame(out, FrameType::kEnd, {}, kCopy);
      done_ = true;
      return true;
    }
    const Folder& folder = folders_.back();
    errno = 0;
    const dirent* found = ::readdir(folder.stream);
    if (found == nullptr) {
      if (errno != 0) return fail(root_ + "/" + folder.path, errno);
      ::closedir(folder.stream);
      folders_.pop_back();
      continue;
    }
    const std::string name = static_cast<const char*>(found->d_name);
    if (name == "." || name == "..") continue;
    const std::string path = folder.path.empty() ? name : folder.path + "/" + name;
    if (!begin(::dirfd(folder.stream), name.c_str(), path, false, out)) return false;
  }
  return true;
}

bool TreeReader::read_file(std::string& out) {
  std::string buffer(std::min<uint64_t>(left_, kDataChunk), '\0');
  ssize_t count = 0;
  if (!buffer.empty()) do
      count = ::read(file_, buffer.data(), buffer.size());
    while (count < 0 && errno == EINTR);
  if (count < 0) return fail(file_path_, errno);
  if (count == 0 && left_ > 0) {
    error_ = file_path_ + ": became shorter while it was read";
    return false;
  }
  if (count > 0) put_frame(out, FrameType::kData, {buffer.data(), static_cast<size_t>(count)}, kCopy);
  left_ -= static_cast<uint64_t>(count);
  if (left_ > 0) return true;
  ::close(file_);
  file_ = -1;
  return true;
}

}  // namespace snug::protocol
