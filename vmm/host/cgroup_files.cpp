#include "vmm/host/cgroup_files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

namespace snug {
namespace {

// One line of /proc/PID/mountinfo.
struct Mount {
  std::string root;  // of its file system, what is seen
  std::string point;
};

std::optional<Mount> cgroup2_mount(const std::string& proc) {
  std::ifstream file(proc + "/mountinfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    Mount mount;
    std::string word;
    words >> word >> word >> word >> mount.root >> mount.point;
    // Behind the fields that may be there or not.
    while (words >> word && word != "-") continue;
    if (words >> word && word == "cgroup2") return mount;
  }
  return std::nullopt;
}

// "4:memory:/x" of v1, "0::/x" of v2.
struct Membership {
  std::optional<std::string> v2;
  std::vector<std::string> v1;
};

Membership membership(const std::string& proc) {
  Membership found;
  std::ifstream file(proc + "/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    if (line.starts_with("0::")) found.v2 = line.substr(second + 1);
    std::istringstream names(line.substr(first + 1, second - first - 1));
    for (std::string name; std::getline(names, name, ',');)
      if (!name.starts_with("name=")) found.v1.push_back(name);
  }
  return found;
}

}  // namespace

int CgroupFiles::read(const std::string& path, std::string& text) const {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return errno;
  text.clear();
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t count = ::read(file.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    if (count == 0) return 0;
    text.append(buffer.data(), static_cast<size_t>(count));
  }
}

UniqueFd CgroupFiles::lock(const std::string& folder) const {
  UniqueFd file(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  while (file && ::flock(file.get(), LOCK_EX) != 0)
    if (errno != EINTR) return {};
  return file;
}

int CgroupFiles::write(const std::string& path, std::string_view text) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file) return errno;
  const ssize_t count = ::write(file.get(), text.data(), text.size());
  if (count < 0) return errno;
  return count == static_cast<ssize_t>(text.size()) ? 0 : EIO;
}

int CgroupFiles::make(const std::string& folder) { return ::mkdir(folder.c_str(), 0755) == 0 ? 0 : errno; }

int CgroupFiles::remove(const std::string& folder) { return ::rmdir(folder.c_str()) == 0 ? 0 : errno; }

bool CgroupFiles::is_marked_delegated(const std::string& folder) const {
  for (const char* name : {"user.delegate", "trusted.delegate"}) {
    char value = 0;
    if (::getxattr(folder.c_str(), name, &value, 1) == 1 && value == '1') return true;
  }
  return false;
}

Result<OwnCgroup> own_cgroup(const std::string& proc) {
  Membership found = membership(proc);
  const auto mount = cgroup2_mount(proc);
  if (!found.v2 || !mount) {
    if (!found.v1.empty())
      return fail_with_hint("this host has control groups of cgroup v1 only", kCgroup2Advice);
    return fail_with_hint("no cgroup v2 is mounted here",
                          "sudo mount -t cgroup2 cgroup2 /sys/fs/cgroup; in a container, have it mounted");
  }
  std::string below = *found.v2;
  if (mount->root != "/") {
    if (below != mount->root && !below.starts_with(mount->root + "/"))
      return fail("what is mounted on {} does not show this process' own control group", mount->point);
    below.erase(0, mount->root.size());
  }
  // Of another namespace's root, and above ours.
  if (below == "/.." || below.starts_with("/../"))
    return fail("this process' control group lies outside of what {} shows here", mount->point);
  if (below == "/") below.clear();
  return OwnCgroup{mount->point, mount->point + below, std::move(found.v1)};
}

int may_make_in(const std::string& folder) {
  for (const char* file : {"", "/cgroup.procs", "/cgroup.subtree_control"})
    if (::access((folder + file).c_str(), W_OK) != 0) return errno;
  return 0;
}

size_t groups_in(const std::string& folder) {
  std::error_code error;
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error))
    if (entry.is_directory(error)) ++count;
  return count;
}

bool has_other_processes(const CgroupFiles& files, const std::string& folder) {
  // The root has no such file.
  std::string events;
  if (files.read(folder + "/cgroup.events", events) != 0) return false;
  const std::string own = std::to_string(::getpid());
  return std::ranges::any_of(cgroup_words(files, folder + "/cgroup.procs"),
                             [&own](const std::string& pid) { return pid != own; });
}

std::vector<std::string> cgroup_words(const CgroupFiles& files, const std::string& path) {
  std::string text;
  if (files.read(path, text) != 0) return {};
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

}  // namespace snug
