#include "vmm/spec/file_checks.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "vmm/base/cache_folder.h"

namespace snug {
namespace {

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Nearly always a path that a shell would have expanded.
bool has_tilde(std::string_view path) {
  return path.starts_with("~") || path.find("/~") != std::string_view::npos;
}
constexpr const char* kTildeHint = "; '~' is not expanded, write the folder out";

// What a failed look at the file means.
// One in the cache belongs to an image that nobody has made yet.
std::string not_found(const FileUse& file, int error) {
  const std::string cache = cache_folder() + "/";
  if (error == ENOENT && cache.size() > 1 && file.path.starts_with(cache)) {
    const std::string image =
        file.path.substr(cache.size(), file.path.find('/', cache.size()) - cache.size());
    return fmt::format("no such file: {}; to make it: snug image build {}", file.path, image);
  }
  if (error != ENOENT) return fmt::format("{}: {}", errno_text(error), file.path);
  return fmt::format("no such file: {}{}", file.path, has_tilde(file.path) ? kTildeHint : "");
}

bool is_input_type(const FileUse& file, mode_t mode) {
  if (file.kind == FileUse::Kind::kDisk) return S_ISREG(mode) || S_ISBLK(mode);
  return S_ISREG(mode) || S_ISFIFO(mode);
}

std::optional<std::string> input_problem(const FileUse& file) {
  struct stat status {};
  if (::stat(file.path.c_str(), &status) != 0) return not_found(file, errno);
  if (S_ISDIR(status.st_mode)) return "is a folder, not a file: " + file.path;
  if (!is_input_type(file, status.st_mode)) {
    return fmt::format("is not a regular file{}: {}",
                       file.kind == FileUse::Kind::kDisk ? " or a block device" : "", file.path);
  }
  if (::faccessat(AT_FDCWD, file.path.c_str(), R_OK, AT_EACCESS) != 0) {
    return fmt::format("cannot be read ({}): {}", errno_text(errno), file.path);
  }
  if (S_ISREG(status.st_mode) && status.st_size == 0) return "is empty: " + file.path;
  return std::nullopt;
}

std::optional<std::string> output_problem(const FileUse& file) {
  struct stat status {};
  if (file.path.ends_with('/')) return "is a folder, not a file: " + file.path;
  if (::stat(file.path.c_str(), &status) == 0) {
    if (S_ISDIR(status.st_mode)) return "is a folder, not a file: " + file.path;
    if (S_ISBLK(status.st_mode) || S_ISSOCK(status.st_mode)) return "is not a file to write to: " + file.path;
    if (::faccessat(AT_FDCWD, file.path.c_str(), W_OK, AT_EACCESS) == 0) return std::nullopt;
    return fmt::format("cannot be written ({}): {}", errno_text(errno), file.path);
  }
  if (errno != ENOENT) return not_found(file, errno);
  const std::string folder = folder_of(file.path);
  if (::stat(folder.c_str(), &status) != 0) return fmt::format("no such folder: {}", folder);
  if (::faccessat(AT_FDCWD, folder.c_str(), W_OK | X_OK, AT_EACCESS) == 0) return std::nullopt;
  return fmt::format("cannot be made ({}): {}", errno_text(errno), file.path);
}

const char* kind_name(mode_t mode) {
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISFIFO(mode)) return "a pipe";
  return "a device";
}

// Nothing is made: a slip would become an empty folder in the guest.
std::optional<std::string> share_problem(const FileUse& file) {
  struct stat status {};
  if (::stat(file.path.c_str(), &status) != 0) {
    if (errno != ENOENT) return not_found(file, errno);
    return fmt::format("no such folder or file: {}{}", file.path,
                       has_tilde(file.path) ? kTildeHint : "; docker makes what is missing, snug does not");
  }
  const bool folder = S_ISDIR(status.st_mode);
  if (!folder && !S_ISREG(status.st_mode))
    return fmt::format("is {}, not a folder or a file: {}", kind_name(status.st_mode), file.path);
  if (::faccessat(AT_FDCWD, file.path.c_str(), folder ? R_OK | X_OK : R_OK, AT_EACCESS) == 0)
    return std::nullopt;
  return fmt::format("cannot be read ({}): {}", errno_text(errno), file.path);
}

std::optional<std::string> folder_problem(const FileUse& file) {
  struct stat status {};
  if (::stat(file.path.c_str(), &status) == 0 && S_ISREG(status.st_mode))
    return "is a file, not a folder: " + file.path;
  return share_problem(file);
}

// A socket left behind by a machine that was killed is no problem.
std::optional<std::string> socket_problem(const FileUse& file) {
  struct stat status {};
  if (file.path.ends_with('/')) return "is a folder, not a socket: " + file.path;
  if (::stat(file.path.c_str(), &status) == 0) {
    if (S_ISSOCK(status.st_mode)) return std::nullopt;
    return fmt::format("is a {}, not a socket: {}", S_ISDIR(status.st_mode) ? "folder" : "file", file.path);
  }
  return output_problem(file);
}

}  // namespace

std::optional<std::string> file_problem(const FileUse& file) {
  if (file.kind == FileUse::Kind::kSocket) return socket_problem(file);
  if (file.kind == FileUse::Kind::kFolder) return folder_problem(file);
  if (file.kind == FileUse::Kind::kShare) return share_problem(file);
  return file.kind == FileUse::Kind::kOutput ? output_problem(file) : input_problem(file);
}

}  // namespace snug
