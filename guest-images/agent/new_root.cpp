#include "guest-images/agent/new_root.h"

#include <dirent.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "guest-images/agent/drivers.h"
#include "guest-images/agent/small_files.h"

namespace snug::agent {
namespace {

constexpr const char* kLower = "/lower";
constexpr const char* kUpper = "/upper";
constexpr const char* kRoot = "/root-of-guest";

// A driver may be a moment late.
constexpr int kAttempts = 20;
constexpr useconds_t kPause = 100'000;

std::string because(const std::string& what) { return what + ": " + std::strerror(errno); }

bool mount_share(const std::string& tag) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (::mount(tag.c_str(), kLower, "virtiofs", MS_RDONLY, nullptr) == 0) return true;
    if (errno != EINVAL && errno != ENODEV) return false;
    ::usleep(kPause);
  }
  return false;
}

// Without a copy of its own in the guest's memory, where the device is memory.
bool mount_image(const std::string& device) {
  load_drivers_of("/modules", "root");
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    for (const char* options : {"dax=always", "dax", ""})
      if (::mount(device.c_str(), kLower, "erofs", MS_RDONLY, options) == 0) return true;
    if (errno != ENOENT && errno != ENXIO) return false;
    ::usleep(kPause);
  }
  return false;
}

bool mount_lower(const std::string& where) {
  return where.starts_with("/dev/") ? mount_image(where) : mount_share(where);
}

void mount_own(const std::string& root) {
  for (const char* name : {"/proc", "/sys", "/dev", "/run", "/tmp", "/root"})
    ::mkdir((root + name).c_str(), 0755);
  ::mount("run", (root + "/run").c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
  ::mount("tmp", (root + "/tmp").c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
  ::mkdir((root + "/run/lock").c_str(), 01777);
  for (const char* name : {"/proc", "/sys", "/dev"})
    ::mount(name, (root + name).c_str(), nullptr, MS_MOVE, nullptr);
}

// The host's name servers are not the guest's, and may be a link to what is not there.
void write_names(const std::string& root, const NameServers& servers) {
  if (!servers.empty()) {
    ::unlink((root + "/etc/resolv.conf").c_str());
    std::string text;
    for (const std::string& server : servers) text += "nameserver " + server + "\n";
    write_file(root + "/etc/resolv.conf", text, Write::kReplace);
  }
  utsname system{};
  ::uname(&system);
  if (std::strcmp(system.nodename, "(none)") == 0) return;
  write_file(root + "/etc/hosts", std::string("127.0.1.1 ") + system.nodename + "\n", Write::kAppend);
}

// The initrd's memory is of no use any more.
void remove_all(const std::string& folder) {
  DIR* listing = ::opendir(folder.c_str());
  if (listing == nullptr) return;
  while (const dirent* entry = ::readdir(listing))
    if (entry->d_name[0] != '.') ::unlink((folder + "/" + entry->d_name).c_str());
  ::closedir(listing);
  ::rmdir(folder.c_str());
}

}  // namespace

std::string enter_root(const std::string& where, const NameServers& servers) {
  for (const char* folder : {kLower, kUpper, kRoot}) ::mkdir(folder, 0755);
  if (!mount_lower(where)) return because("mount it");
  const std::string upper = kUpper;
  if (::mount("root", kUpper, "tmpfs", 0, "mode=755") != 0) return because("tmpfs");
  ::mkdir((upper + "/files").c_str(), 0755);
  ::mkdir((upper + "/work").c_str(), 0755);
  const std::string layers =
      std::string("lowerdir=") + kLower + ",upperdir=" + upper + "/files,workdir=" + upper + "/work";
  if (::mount("root", kRoot, "overlay", 0, layers.c_str()) != 0) return because("overlay");
  mount_own(kRoot);
  write_names(kRoot, servers);
  remove_all("/modules");
  ::unlink("/init");
  if (::chdir(kRoot) != 0 || ::mount(".", "/", nullptr, MS_MOVE, nullptr) != 0 || ::chroot(".") != 0 ||
      ::chdir("/") != 0)
    return because("chroot");
  return {};
}

}  // namespace snug::agent
