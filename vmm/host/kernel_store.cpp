#include "vmm/host/kernel_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "vmm/base/cache_folder.h"
#include "vmm/base/checked.h"
#include "vmm/base/log.h"

namespace snug {
namespace {

constexpr size_t kFilesMax = 16;
constexpr uint64_t kBytesMax = kGiB;
constexpr std::string_view kSuffix = ".kernel";
constexpr std::string_view kUnfinished = "new-";  // then the process
constexpr time_t kAbandoned = 3600;               // seconds
// A file changed this short ago could change again without its time of change telling.
constexpr time_t kSettled = 2;

// Ours alone: what others may write to must not become a kernel.
Result<void> check_private(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return fail_errno(errno, "fstat");
  if (status.st_uid != ::geteuid()) return fail("belongs to another user");
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) return fail("others may write to it");
  return {};
}

// "" for what must not be kept: no regular file, without a name, or just changed.
std::string name_of(int kernel_fd) {
  struct stat status {};
  if (::fstat(kernel_fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_nlink == 0) return {};
  if (::time(nullptr) - status.st_ctim.tv_sec < kSettled) return {};
  return fmt::format("{:x}-{:x}-{:x}-{:x}.{:x}-{:x}.{:x}{}", status.st_dev, status.st_ino, status.st_size,
                     status.st_mtim.tv_sec, status.st_mtim.tv_nsec, status.st_ctim.tv_sec,
                     status.st_ctim.tv_nsec, kSuffix);
}

}  // namespace

Result<KernelStore> KernelStore::open(const std::string& folder) {
  if (belongs_to_another(folder)) return fail("{} belongs to another user", folder);
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(folder).parent_path(), error);
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno(errno, "mkdir {}", folder);
  KernelStore store;
  store.folder_ = SNUG_TRY(open_file(folder, O_RDONLY | O_DIRECTORY));
  SNUG_TRY(with_context(check_private(store.folder_.get()), folder));
  return store;
}

void KernelStore::choose(int kernel_fd) { name_ = folder_ ? name_of(kernel_fd) : ""; }

UniqueFd KernelStore::find() const {
  if (name_.empty()) return {};
  UniqueFd file(::openat(folder_.get(), name_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file || !check_private(file.get())) return {};
  ::utimensat(folder_.get(), name_.c_str(), nullptr, 0);  // used: prune() takes others first
  return file;
}

// Under another name until it is whole; what a crash leaves behind, prune() removes.
Result<UniqueFd> KernelStore::begin() {
  if (name_.empty()) return fail("this kernel is not kept");
  drop_unfinished();
  const std::string unfinished = fmt::format("{}{}", kUnfinished, ::getpid());
  ::unlinkat(folder_.get(), unfinished.c_str(), 0);
  UniqueFd file(
      ::openat(folder_.get(), unfinished.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return fail_errno(errno, "open {}", unfinished);
  unfinished_ = unfinished;
  return file;
}

// In the place of one that is there already and did not load: of another build, or damaged.
Result<UniqueFd> KernelStore::keep() {
  if (unfinished_.empty()) return fail("no kernel is being kept");
  if (::renameat(folder_.get(), unfinished_.c_str(), folder_.get(), name_.c_str()) != 0) {
    const int error = errno;
    drop_unfinished();
    return fail_errno(error, "rename {}", name_);
  }
  unfinished_.clear();
  log_debug("kernel cache: kept {}", name_);
  prune();
  UniqueFd file = find();
  if (!file) return fail("{} is gone again", name_);
  return file;
}

void KernelStore::drop_unfinished() {
  if (!unfinished_.empty()) ::unlinkat(folder_.get(), std::exchange(unfinished_, {}).c_str(), 0);
}

void KernelStore::prune() const {
  struct Entry {
    timespec used;
    uint64_t size;
    std::string name;
  };
  // A descriptor of its own: closedir() closes it.
  UniqueFd listing(::openat(folder_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::fdopendir(listing.get()), ::closedir);
  if (!dir) return;
  listing.release();
  std::vector<Entry> entries;
  while (const dirent* found = ::readdir(dir.get())) {  // NOLINT(concurrency-mt-unsafe): its own stream
    const std::string name = static_cast<const char*>(found->d_name);
    struct stat status {};
    if (::fstatat(folder_.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (name.starts_with(kUnfinished) && ::time(nullptr) - status.st_mtim.tv_sec > kAbandoned)
      ::unlinkat(folder_.get(), name.c_str(), 0);
    if (!name.ends_with(kSuffix)) continue;
    entries.push_back({status.st_mtim, static_cast<uint64_t>(status.st_size), name});
  }
  std::ranges::sort(entries, [](const Entry& a, const Entry& b) {
    return std::pair(a.used.tv_sec, a.used.tv_nsec) > std::pair(b.used.tv_sec, b.used.tv_nsec);
  });
  uint64_t bytes = 0;
  for (size_t i = 0; i < entries.size(); ++i) {
    bytes += entries[i].size;
    // Guests that have mapped it keep it until they end.
    if (i > 0 && (i >= kFilesMax || bytes > kBytesMax)) ::unlinkat(folder_.get(), entries[i].name.c_str(), 0);
  }
}

}  // namespace snug
