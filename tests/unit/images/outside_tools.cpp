#include "tests/unit/images/outside_tools.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/loop.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "vmm/base/unique_fd.h"

namespace snug::test {

namespace {

std::string path_of(int fd) { return fmt::format("/proc/{}/fd/{}", ::getpid(), fd); }

std::string program() {
  for (const char* path : {"/usr/bin/fsck.erofs", "/usr/sbin/fsck.erofs", "/sbin/fsck.erofs"})
    if (::access(path, X_OK) == 0) return path;
  return "";
}

std::string xattrs_of(const std::string& path) {
  static std::array<char, 65536> names;
  static std::array<char, 65536> value;
  const ssize_t size = ::llistxattr(path.c_str(), names.data(), names.size());
  std::map<std::string, std::string> sorted;
  for (ssize_t at = 0; at < size;) {
    const std::string name = names.data() + at;
    at += static_cast<ssize_t>(name.size()) + 1;
    const ssize_t count = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
    if (count >= 0) sorted[name] = std::string(value.data(), static_cast<size_t>(count));
  }
  std::string out;
  for (const auto& [name, text] : sorted) out += fmt::format(" x:{}={}", escaped(name), escaped(text));
  return out;
}

std::string line_of(const std::string& path, const std::string& name) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) return "? " + name + " " + std::strerror(errno);
  const uint32_t type = status.st_mode & S_IFMT;
  static const std::map<uint32_t, std::pair<char, unsigned>> kKinds{
      {S_IFDIR, {'d', 0755}}, {S_IFREG, {'f', 0644}}, {S_IFLNK, {'l', 0777}}, {S_IFCHR, {'c', 0644}},
      {S_IFBLK, {'b', 0644}}, {S_IFIFO, {'p', 0644}}, {S_IFSOCK, {'s', 0644}}};
  const auto [letter, plain_mode] = kKinds.at(type);
  std::string line = fmt::format("{} {}", letter, name.empty() ? "/" : escaped(name));
  if (letter == 'l') line += " " + escaped(std::filesystem::read_symlink(path).string());
  if (letter == 'c' || letter == 'b')
    line += fmt::format(" {}:{}", major(status.st_rdev), minor(status.st_rdev));
  if (letter == 'f' && status.st_size > 200) line += fmt::format(" {}...", status.st_size);
  if (letter == 'f' && status.st_size > 0 && status.st_size <= 200) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    line += " " + escaped(text.str());
  }
  const size_t plain = line.size();
  if ((status.st_mode & 07777) != plain_mode) line += fmt::format(" mode={:o}", status.st_mode & 07777);
  if (status.st_uid != 0) line += fmt::format(" uid={}", status.st_uid);
  if (status.st_gid != 0) line += fmt::format(" gid={}", status.st_gid);
  if (status.st_mtim.tv_sec != 0 || status.st_mtim.tv_nsec != 0)
    line += fmt::format(" mtime={}", status.st_mtim.tv_sec);
  if (status.st_mtim.tv_nsec != 0) line += fmt::format(".{:09}", status.st_mtim.tv_nsec);
  if (letter != 'd' && status.st_nlink != 1) line += fmt::format(" links={}", status.st_nlink);
  line += xattrs_of(path);
  return name.empty() && line.size() == plain ? "" : line;
}

}  // namespace

bool has_fsck() { return !program().empty(); }

std::string fsck(int image, const std::string& option) {
  if (!has_fsck()) return "";
  FILE* const pipe = ::popen((program() + " " + option + " " + path_of(image) + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return "popen";
  std::string said;
  std::array<char, 4096> piece{};
  for (size_t got = 0; (got = std::fread(piece.data(), 1, piece.size(), pipe)) > 0;)
    said.append(piece.data(), got);
  const int status = ::pclose(pipe);
  return status == 0 ? "" : said;
}

Lines lines_of_folder(const std::string& folder) {
  std::map<std::string, std::string> by_path;
  by_path[""] = line_of(folder, "");
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().lexically_relative(folder).string();
    by_path[name] = line_of(entry.path().string(), name);
  }
  Lines lines;
  for (const auto& [path, line] : by_path)
    if (!line.empty()) lines.push_back(line);
  return lines;
}

namespace {

// The image behind a loop device, which goes with the descriptor: kernels before 6.12 mount no file. "" where
// there is none.
std::string loop_device(const std::string& image, UniqueFd& device) {
  const UniqueFd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  const UniqueFd file(::open(image.c_str(), O_RDONLY | O_CLOEXEC));
  if (!control || !file) return "";
  // Somebody else may take the same one.
  for (int attempt = 0; attempt < 5; ++attempt) {
    const std::string path = fmt::format("/dev/loop{}", ::ioctl(control.get(), LOOP_CTL_GET_FREE));
    device = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    loop_config config{};
    config.fd = static_cast<uint32_t>(file.get());
    config.info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
    if (device && ::ioctl(device.get(), LOOP_CONFIGURE, &config) == 0) return path;
  }
  return "";
}

// "" or why not.
std::string mount_image(const std::string& image, const char* folder, UniqueFd& device) {
  if (::mount(image.c_str(), folder, "erofs", MS_RDONLY, nullptr) == 0) return "";
  const std::string why = std::strerror(errno);
  const std::string loop = loop_device(image, device);
  if (!loop.empty() && ::mount(loop.c_str(), folder, "erofs", MS_RDONLY, nullptr) == 0) return "";
  return fmt::format("mounting EROFS from a file: {}, from {}: {}", why,
                     loop.empty() ? "a loop device" : loop, std::strerror(errno));
}

}  // namespace

// In a process and a mount namespace of its own: nothing of it is left, whatever happens.
Mounted mounted(int image) {
  Mounted result;
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0) return result;
  const UniqueFd from(ends[0]);
  UniqueFd to(ends[1]);
  const std::string source = path_of(image);
  const pid_t child = ::fork();
  if (child == 0) {
    std::string said;
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", "/mnt", "tmpfs", 0, nullptr) != 0) {
      said = std::string("!mounts: ") + std::strerror(errno);
    } else {
      std::filesystem::create_directory("/mnt/image");
      UniqueFd device;
      if (const std::string why = mount_image(source, "/mnt/image", device); !why.empty())
        said = "!" + why;
      else
        for (const std::string& line : lines_of_folder("/mnt/image")) said += line + "\n";
    }
    for (size_t done = 0; done < said.size();) {
      const ssize_t count = ::write(to.get(), said.data() + done, said.size() - done);
      if (count <= 0) break;
      done += static_cast<size_t>(count);
    }
    ::_exit(0);
  }
  to.reset();
  std::string said;
  std::array<char, 4096> piece{};
  for (ssize_t got = 0; (got = ::read(from.get(), piece.data(), piece.size())) > 0;)
    said.append(piece.data(), static_cast<size_t>(got));
  int status = 0;
  ::waitpid(child, &status, 0);
  if (said.starts_with("!") || status != 0) {
    result.why_not = said.empty() ? "the process that mounts died" : said.substr(1);
    return result;
  }
  result.done = true;
  std::istringstream lines(said);
  for (std::string line; std::getline(lines, line);) result.lines.push_back(line);
  return result;
}

}  // namespace snug::test
