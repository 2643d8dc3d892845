#include "vmm/jail/share_steps.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/jail/capabilities.h"
#include "vmm/jail/hints.h"
#include "vmm/jail/landlock.h"
#include "vmm/jail/step_list.h"

namespace snug::jail {
namespace {

// Of <linux/mount.h>, which does not go together with <sys/mount.h>.
struct MountAttributes {
  uint64_t set, clear, propagation, user_namespace;
};
constexpr long kOpenTree = 428, kMoveMount = 429, kMountSetattr = 442;
constexpr unsigned kCloneTree = 1, kFromDescriptor = 4;  // OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH
constexpr uint64_t kReadOnly = 1, kNoSetUser = 2, kNoDevices = 4, kNoPrograms = 8;
constexpr unsigned kRecursive = 0x8000;  // AT_RECURSIVE

constexpr const char* kEmpty = "/empty";

bool is_folder(int opened) {
  struct stat status {};
  return ::fstat(opened, &status) == 0 && S_ISDIR(status.st_mode);
}

bool is_same(int a, int b) {
  struct stat one {};
  struct stat other {};
  return ::fstat(a, &one) == 0 && ::fstat(b, &other) == 0 && one.st_dev == other.st_dev &&
         one.st_ino == other.st_ino;
}

int write_to(const char* path, const std::string& text) {
  const UniqueFd file(::open(path, O_WRONLY | O_CLOEXEC));
  if (!file) return errno;
  return ::write(file.get(), text.data(), text.size()) < 0 ? errno : 0;
}

// Files belong to nobody in a namespace without it, and rights over them reach nobody's.
int map_self(const Split& split) {
  // Without it there is no map of groups.
  if (const int error = write_to("/proc/self/setgroups", "deny"); error != 0 && error != ENOENT) return error;
  if (const int error = write_to("/proc/self/uid_map", fmt::format("{0} {0} 1", split.user)); error != 0)
    return error;
  return write_to("/proc/self/gid_map", fmt::format("{0} {0} 1", split.group));
}

// In the working folder, an empty file system of our own.
int make_place(const std::string& name, bool folder) {
  if (folder) return failed(::mkdir(name.c_str(), 0555));
  const UniqueFd file(::open(name.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0444));
  return file ? 0 : errno;
}

class ShareWay : private StepList {
 public:
  ShareWay(const Split& split, std::span<SharedFolder> folders) : StepList(split), folders_(folders) {}

  Result<ShareEntry> take(const Limits& limits) {
    namespaces();
    if (own_user_namespace()) note("the user in its namespace", map_self(split()));
    if (split().namespaces != Namespaces::kNone) SNUG_TRY(root());
    // What there is no root for stays as it was opened.
    for (size_t i = roots_.size(); i < folders_.size(); ++i) roots_.push_back(std::move(folders_[i].opened));
    capabilities();
    no_new_privileges();
    not_dumpable();
    landlock();
    StepList::limits(limits);
    end_with_the_parent();
    return ShareEntry{StepList::take(), std::move(roots_), std::move(empty_), std::move(own_files_)};
  }

 private:
  Result<void> root() {
    // Before anything lies over the old root, which may be one of them.
    std::vector<UniqueFd> trees;
    for (const SharedFolder& folder : folders_) trees.push_back(SNUG_TRY(tree_of(folder)));
    own_files_ =
        UniqueFd(static_cast<int>(::syscall(kOpenTree, AT_FDCWD, "/proc/self/fd", kCloneTree | O_CLOEXEC)));
    if (!own_files_) miss("open files without the rest of /proc", errno, hint_inside_namespaces(errno));
    const std::string options = fmt::format("size=64k,nr_inodes={},mode=555", folders_.size() + 2);
    int error = lay_empty_root(0, options.c_str());
    if (error == EINVAL) {
      miss("root of shares", error, "a mount point as the folder of the chroot: mount --bind FOLDER FOLDER");
      return {};
    }
    if (error != 0) {
      note("root of shares", error);
      return {};
    }
    for (size_t i = 0; i < folders_.size(); ++i)
      SNUG_TRY(place(std::to_string(i), folders_[i], trees[i].get()));
    if (::mkdir(kEmpty + 1, 0555) != 0) return fail_errno(errno, "shares: an empty folder");
    error = enter_laid_root();
    note("root of shares", error);
    if (error != 0) return fail_errno(error, "shares: leaving the host's root");
    for (size_t i = 0; i < folders_.size(); ++i) {
      roots_.push_back(SNUG_TRY(open_file(fmt::format("/{}", i), O_PATH | O_NOFOLLOW)));
      if (!is_same(roots_.back().get(), folders_[i].opened.get()))
        return fail("{} is not what it was a moment ago", folders_[i].path);
      folders_[i].opened.reset();
    }
    empty_ = SNUG_TRY(open_file(kEmpty, O_PATH | O_DIRECTORY));
    return failed(::mount(nullptr, "/", nullptr,
                          MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr)) == 0
               ? Result<void>()
               : fail_errno(errno, "shares: their root");
  }

  // A mount of its own that is nowhere yet. Not by the descriptor: what that has open belongs to the parent's
  // namespace, of which nothing can be cloned.
  Result<UniqueFd> tree_of(const SharedFolder& folder) {
    const auto clone = [&](unsigned more) {
      return UniqueFd(static_cast<int>(
          ::syscall(kOpenTree, AT_FDCWD, folder.path.c_str(), kCloneTree | O_CLOEXEC | more)));
    };
    // An ordinary user may not tear off what is mounted below: it could show what that hides.
    UniqueFd tree = clone(folder.submounts ? kRecursive : 0);
    if (!tree && errno == EINVAL) tree = clone(kRecursive);
    if (!tree) return fail_errno(errno, "share {}: a mount of its own", folder.path);
    MountAttributes attributes{kNoSetUser | kNoDevices | kNoPrograms | (folder.readonly ? kReadOnly : 0), 0,
                               0, 0};
    const int error = failed(static_cast<int>(::syscall(
        kMountSetattr, tree.get(), "", AT_EMPTY_PATH | kRecursive, &attributes, sizeof attributes)));
    // Second lines, all of them: the server makes no such things and writes nothing there.
    if (error != 0) miss("mounts without devices and programs", error, "Linux 5.12");
    return tree;
  }

  Result<void> place(const std::string& name, const SharedFolder& folder, int tree) {
    if (const int error = make_place(name, is_folder(folder.opened.get())); error != 0)
      return fail_errno(error, "share {}: a place for it", folder.path);
    if (::syscall(kMoveMount, tree, "", AT_FDCWD, name.c_str(), kFromDescriptor) != 0)
      return fail_errno(errno, "share {}: mount", folder.path);
    return {};
  }

  void capabilities() {
    if (has_capability(CAP_SETPCAP))
      if (const int error = lock_capabilities(); error != 0)
        miss("bounding set of capabilities", error, hint_inside_namespaces(error));
    note("capabilities over files only",
         keep_capabilities({CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID}));
  }

  void landlock() {
    const int version = landlock_version();
    if (version < 0) return miss("Landlock", errno, hint_for_landlock(errno));
    if (version < 2) return miss("Landlock", EOPNOTSUPP, "Linux 5.19: before, files could not be moved");
    std::vector<ReachableFolder> reachable;
    for (size_t i = 0; i < roots_.size(); ++i)
      reachable.push_back({roots_[i].get(), !is_folder(roots_[i].get()), folders_[i].readonly});
    note(fmt::format("Landlock, version {}", version), forbid_names_but(version, reachable));
  }

  std::span<SharedFolder> folders_;
  std::vector<UniqueFd> roots_;
  UniqueFd empty_;
  UniqueFd own_files_;
};

}  // namespace

Result<ShareEntry> take_share_steps(const Split& split, const Limits& limits,
                                    std::span<SharedFolder> folders) {
  return ShareWay(split, folders).take(limits);
}

}  // namespace snug::jail
