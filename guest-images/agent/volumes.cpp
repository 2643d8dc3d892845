#include "guest-images/agent/volumes.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "guest-images/agent/mount.h"
#include "guest-images/agent/small_files.h"
#include "vmm/protocol/tree_reader.h"
#include "vmm/protocol/tree_writer.h"

namespace snug::agent {
namespace {

constexpr const char* kPlace = "/run/snug-volume";

std::string because(const std::string& what) { return what + ": " + std::strerror(errno); }

// As the image has it.
std::string copy_attributes(const std::string& from, const std::string& to) {
  struct stat status {};
  if (::stat(from.c_str(), &status) != 0) return because(from);
  if (::chown(to.c_str(), status.st_uid, status.st_gid) != 0 ||
      ::chmod(to.c_str(), status.st_mode & 07777) != 0)
    return because(to);
  return {};
}

std::string fill(const std::string& from, const std::string& to) {
  std::string why = copy_attributes(from, to);
  return why.empty() ? copy_folder(from, to) : why;
}

std::string mount_in_memory(const std::string& folder) {
  ::mkdir(kPlace, 0700);
  if (::mount("volume", kPlace, "tmpfs", MS_NODEV, "mode=755") != 0) return because("tmpfs");
  std::string why = fill(folder, kPlace);
  if (why.empty() && ::mount(kPlace, folder.c_str(), nullptr, MS_MOVE, nullptr) != 0)
    why = because("move it there");
  if (!why.empty()) ::umount2(kPlace, MNT_DETACH);
  ::rmdir(kPlace);
  return why;
}

// One whose copy was cut short has another name, and is begun anew.
std::string mount_kept(const std::string& folder, const std::string& volumes) {
  const std::string own = volumes + "/" + volume_name(folder);
  if (::access(own.c_str(), F_OK) != 0) {
    const std::string half = own + "%half";
    ::mkdir(half.c_str(), 0700);
    if (std::string why = fill(folder, half); !why.empty()) return why;
    ::sync();
    if (::rename(half.c_str(), own.c_str()) != 0) return because("rename " + half);
  }
  if (::mount(own.c_str(), folder.c_str(), nullptr, MS_BIND, nullptr) != 0) return because("bind it there");
  return {};
}

std::string mount_volume(const std::string& folder, const Fd& kept) {
  if (std::string why = make_folders(folder); !why.empty()) return why;
  char path[PATH_MAX];
  if (::realpath(folder.c_str(), path) == nullptr) return because(folder);
  if (std::strcmp(path, "/") == 0) return "it is the root itself";
  if (!kept) return mount_in_memory(path);
  return mount_kept(path, "/proc/self/fd/" + std::to_string(kept.get()));
}

}  // namespace

Fd open_volumes(const std::string& storage) {
  const std::string folder = storage + "/volumes";
  ::mkdir(folder.c_str(), 0755);
  return Fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

void mount_volumes(std::vector<std::string> folders, const Fd& kept) {
  // One that lies in another comes behind it.
  std::sort(folders.begin(), folders.end());
  for (const std::string& folder : folders) {
    if (folder.empty() || folder.front() != '/') continue;
    if (const std::string why = mount_volume(folder, kept); !why.empty())
      tell_kernel_log("the volume " + folder + ": " + why);
  }
}

std::string volume_name(const std::string& folder) {
  std::string name;
  for (const char c : folder.substr(std::min<size_t>(1, folder.size()))) {
    if (c == '/')
      name += "%2F";
    else if (c == '%')
      name += "%25";
    else
      name += c;
  }
  return name;
}

std::string copy_folder(const std::string& from, const std::string& to) {
  using protocol::TreeWriter;
  protocol::TreeReader reader;
  if (!reader.open(from)) return reader.error();
  TreeWriter writer(to, "", TreeWriter::Owners::kKept, TreeWriter::Sender::kTrusted);
  protocol::FrameReader frames;
  std::string problem;
  for (bool more = true; more;) {
    std::string part;
    more = reader.next(part);
    frames.feed(part);
    while (const auto frame = frames.next())
      if (!writer.take(*frame) && !writer.error().empty()) return writer.error();
    for (const auto& problems : {reader.take_problems(), writer.take_problems()})
      for (const protocol::Problem& each : problems)
        if (problem.empty() && !each.left_out) problem = each.text;
  }
  if (!reader.error().empty()) return reader.error();
  return problem;
}

}  // namespace snug::agent
