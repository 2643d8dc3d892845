#include "guest-images/agent/mount.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "guest-images/agent/connection.h"

namespace snug::agent {
namespace {

using protocol::MountRequest;

constexpr const char* kType = "virtiofs";

// A driver that is a module may still be looking at the devices.
constexpr int kAttempts = 20;
constexpr useconds_t kPause = 100'000;

std::string because(const std::string& what, int error) { return what + ": " + std::strerror(error); }

bool is_folder(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

std::string make_target(const MountRequest& request) {
  const std::string& target = request.target;
  if (request.file.empty()) return make_folders(target);
  const std::string folder = target.substr(0, target.rfind('/'));
  if (std::string why = folder.empty() ? "" : make_folders(folder); !why.empty()) return why;
  struct stat status {};
  if (::stat(target.c_str(), &status) == 0)
    return S_ISDIR(status.st_mode) ? target + " is a folder, and the share is a file" : "";
  const Fd file(::open(target.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  return file ? "" : because("make the file " + target, errno);
}

std::string read_all(const char* path) {
  std::string text;
  const Fd file(::open(path, O_RDONLY | O_CLOEXEC));
  std::array<char, 4096> buffer;
  for (ssize_t count; (count = ::read(file.get(), buffer.data(), buffer.size())) > 0;)
    text.append(buffer.data(), static_cast<size_t>(count));
  return text;
}

// The next word of a line; it is taken off.
std::string_view next_word(std::string_view& line) {
  const size_t end = std::min(line.find(' '), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(std::min(end + 1, line.size()));
  return word;
}

// "\\040" is a space, and so for whatever would end a word.
std::string unescaped(std::string_view word) {
  std::string text;
  for (size_t i = 0; i < word.size(); ++i) {
    const auto digit = [&](size_t at) { return word[i + at] - '0'; };
    if (word[i] == '\\' && i + 3 < word.size()) {
      text += static_cast<char>(digit(1) << 6 | digit(2) << 3 | digit(3));
      i += 3;
    } else {
      text += word[i];
    }
  }
  return text;
}

std::string mount_at(const MountRequest& request, const std::string& place) {
  const unsigned long flags = MS_NODEV | (request.readonly ? MS_RDONLY : 0);
  int error = EINVAL;
  // EINVAL: no device has that tag.
  for (int attempt = 0; attempt < kAttempts && error == EINVAL; ++attempt) {
    if (attempt > 0) ::usleep(kPause);
    if (::mount(request.tag.c_str(), place.c_str(), kType, flags, nullptr) == 0) return "";
    error = errno;
  }
  switch (error) {
    case ENODEV:
      return "this kernel has no virtiofs (CONFIG_VIRTIO_FS)";
    case EINVAL:
      return "this kernel finds no device with the tag " + request.tag;
    case EPERM:
      return "mounting takes root, which this agent does not run as";
    default:
      return std::strerror(error);
  }
}

// The root of a virtio-fs is a folder always: the file in it gets a mount of its own.
std::string mount_file(const MountRequest& request) {
  std::array<char, 32> place{};
  for (const char* pattern : {"/run/snug-file-XXXXXX", "/tmp/snug-file-XXXXXX", "/dev/snug-file-XXXXXX"}) {
    std::strcpy(place.data(), pattern);
    if (::mkdtemp(place.data()) != nullptr) break;
    place[0] = '\0';
  }
  if (place[0] == '\0') return because("make a folder in /run, /tmp or /dev", errno);
  std::string why = mount_at(request, place.data());
  if (why.empty()) {
    const std::string file = std::string(place.data()) + "/" + request.file;
    // Read-only as the mount that it is of.
    if (::mount(file.c_str(), request.target.c_str(), nullptr, MS_BIND, nullptr) != 0)
      why = because("bind " + request.file, errno);
    ::umount2(place.data(), MNT_DETACH);
  }
  ::rmdir(place.data());
  return why;
}

}  // namespace

std::string make_folders(const std::string& path) {
  for (size_t end = 0; end != std::string::npos;) {
    end = path.find('/', end + 1);
    const std::string folder = path.substr(0, end);
    if (is_folder(folder) || ::mkdir(folder.c_str(), 0755) == 0) continue;
    const int error = errno;
    if (!is_folder(folder)) return because("make the folder " + folder, error);
  }
  return "";
}

bool is_mounted(std::string_view mountinfo, const MountRequest& request, std::string_view path) {
  bool found = false;
  while (!mountinfo.empty()) {
    const size_t end = std::min(mountinfo.find('\n'), mountinfo.size());
    std::string_view line = mountinfo.substr(0, end);
    mountinfo.remove_prefix(std::min(end + 1, mountinfo.size()));
    for (int skipped = 0; skipped < 3; ++skipped) next_word(line);
    const std::string root = unescaped(next_word(line));
    if (unescaped(next_word(line)) != path) continue;
    while (!line.empty() && next_word(line) != "-") {
    }
    // The last one covers the others.
    const bool is_ours = next_word(line) == kType;
    found = is_ours && unescaped(next_word(line)) == request.tag && root == "/" + request.file;
  }
  return found;
}

std::string mount_share(const MountRequest& request) {
  if (std::string why = make_target(request); !why.empty()) return why;
  std::array<char, PATH_MAX> path{};
  if (::realpath(request.target.c_str(), path.data()) == nullptr) return because(request.target, errno);
  if (is_mounted(read_all("/proc/self/mountinfo"), request, path.data())) return "";
  return request.file.empty() ? mount_at(request, request.target) : mount_file(request);
}

}  // namespace snug::agent
