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
#include "guest-images/agent/storage.h"
#include "guest-images/agent/volumes.h"

namespace snug::agent {
namespace {

constexpr const char* kLower = "/lower";
constexpr const char* kUpper = "/upper";
constexpr const char* kRoot = "/root-of-guest";

// A driver may be a moment late.
constexpr int kAttempts = 20;
constexpr useconds_t kPause = 100'000;

std::string because(const std::string& what) { return what + ": " + std::strerror(errno); }

std::string mount_share(const std::string& tag) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (::mount(tag.c_str(), kLower, "virtiofs", MS_RDONLY, nullptr) == 0) return {};
    if (errno != EINVAL && errno != ENODEV) break;
    ::usleep(kPause);
  }
  return because("mount it");
}

// What the kernel lacks, and what is to be done on the host.
std::string too_old(const std::string& what) {
  return "this kernel " + what +
         "; on the host: snug image build default (or stock, for -k stock), or another --kernel";
}

// Without a copy of its own in the guest's memory, where the device is memory.
std::string mount_image(const std::string& device) {
  load_drivers_of("/modules", "root");
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    for (const char* options : {"dax=always", "dax", ""})
      if (::mount(device.c_str(), kLower, "erofs", MS_RDONLY, options) == 0) return {};
    if (errno != ENOENT && errno != ENXIO) break;
    ::usleep(kPause);
  }
  switch (errno) {
    case ENOENT:
    case ENXIO:
      return too_old(device.starts_with("/dev/pmem")
                         ? "has no persistent memory (CONFIG_VIRTIO_PMEM, CONFIG_BLK_DEV_PMEM)"
                         : "has no driver for the disk (CONFIG_VIRTIO_BLK)");
    case ENODEV:
      return too_old("has no EROFS (CONFIG_EROFS_FS)");
    case EINVAL:
    case EOPNOTSUPP:
      return too_old("is too old for the image (before 5.15), or finds it broken");
    default:
      return because("mount it");
  }
}

std::string mount_lower(const std::string& where) {
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

void write_names(const std::string& root, const NameServers& servers) {
  write_name_servers(root, servers);
  utsname system{};
  ::uname(&system);
  if (std::strcmp(system.nodename, "(none)") == 0) return;
  const std::string line = std::string("127.0.1.1 ") + system.nodename + "\n";
  // One that is kept has it from the boot before.
  if (("\n" + read_file(root + "/etc/hosts")).find("\n" + line) == std::string::npos)
    write_file(root + "/etc/hosts", line, Write::kAppend);
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

std::string mount_upper(const std::string& storage) {
  if (!storage.empty()) return mount_storage(storage, kUpper);
  return ::mount("root", kUpper, "tmpfs", 0, "mode=755") == 0 ? "" : because("tmpfs");
}

}  // namespace

// The host's name servers are not the guest's, and may be a link to what is not there.
void write_name_servers(const std::string& root, const NameServers& servers) {
  if (servers.empty()) return;
  ::unlink((root + "/etc/resolv.conf").c_str());
  std::string text;
  for (const std::string& server : servers) text += "nameserver " + server + "\n";
  write_file(root + "/etc/resolv.conf", text, Write::kReplace);
}

std::string enter_root(const RootPlan& plan) {
  for (const char* folder : {kLower, kUpper, kRoot}) ::mkdir(folder, 0755);
  if (std::string why = mount_lower(plan.where); !why.empty()) return why;
  const std::string upper = kUpper;
  if (std::string why = mount_upper(plan.storage); !why.empty()) return why;
  ::mkdir((upper + "/files").c_str(), 0755);
  ::mkdir((upper + "/work").c_str(), 0755);
  const std::string layers =
      std::string("lowerdir=") + kLower + ",upperdir=" + upper + "/files,workdir=" + upper + "/work";
  if (::mount("root", kRoot, "overlay", 0, layers.c_str()) != 0)
    return errno == ENODEV ? too_old("has no overlay (CONFIG_OVERLAY_FS)") : because("overlay");
  const Fd kept = plan.storage.empty() ? Fd() : open_volumes(upper);
  mount_own(kRoot);
  write_names(kRoot, plan.servers);
  remove_all("/modules");
  ::unlink("/init");
  if (::chdir(kRoot) != 0 || ::mount(".", "/", nullptr, MS_MOVE, nullptr) != 0 || ::chroot(".") != 0 ||
      ::chdir("/") != 0)
    return because("chroot");
  mount_volumes(plan.volumes, kept);
  return {};
}

}  // namespace snug::agent
