#include "vmm/host/template_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
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

constexpr const char* kState = "state";
constexpr const char* kMemory = "memory";
constexpr const char* kTouched = "touched";
constexpr const char* kTouchedNew = "touched.new";
constexpr size_t kTemplatesMax = 8;
constexpr size_t kNotesMax = 256;
constexpr uint64_t kBytesMax = 4 * kGiB;  // on the disk
constexpr std::string_view kUnfinished = "new-";
constexpr std::string_view kNote = ".seen";
constexpr time_t kAbandoned = 3600;   // seconds
constexpr time_t kLives = 24 * 3600;  // seconds: the guest's addresses are others each day
// A file changed this short ago could change again without its time of change telling.
constexpr time_t kSettled = 2;

Result<void> check_private(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return fail_errno(errno, "fstat");
  if (status.st_uid != ::geteuid()) return fail("belongs to another user");
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) return fail("others may write to it");
  return {};
}

UniqueFd open_in(int folder, const std::string& name, const char* file) {
  UniqueFd fd(::openat(folder, (name + "/" + file).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (fd && !check_private(fd.get())) fd.reset();
  return fd;
}

void remove_one(int folder, const std::string& name) {
  for (const char* file : {kState, kMemory, kTouched, kTouchedNew})
    ::unlinkat(folder, (name + "/" + file).c_str(), 0);
  ::unlinkat(folder, name.c_str(), AT_REMOVEDIR);
}

}  // namespace

// --- kinds -----------------------------------------------------------------------------------------------

void TemplateKind::add(std::string_view what, std::string_view value) {
  text_ += fmt::format("{} {} {}\n", what, value.size(), value);
}

bool TemplateKind::add_file(std::string_view what, int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_nlink == 0) return false;
  if (::time(nullptr) - status.st_ctim.tv_sec < kSettled) return false;
  add(what, fmt::format("{:x}-{:x}-{:x}-{:x}.{:x}-{:x}.{:x}", status.st_dev, status.st_ino, status.st_size,
                        status.st_mtim.tv_sec, status.st_mtim.tv_nsec, status.st_ctim.tv_sec,
                        status.st_ctim.tv_nsec));
  return true;
}

// FNV-1a over 128 bits: nobody gains by making two kinds alike, whose own templates they are.
std::string TemplateKind::name() const {
  unsigned __int128 hash = (static_cast<unsigned __int128>(0x6c62272e07bb0142) << 64) | 0x62b821756295c58d;
  const unsigned __int128 prime = (static_cast<unsigned __int128>(1) << 88) | 0x13b;
  for (const char c : text_) {
    hash ^= static_cast<unsigned char>(c);
    hash *= prime;
  }
  return fmt::format("{:016x}{:016x}", static_cast<uint64_t>(hash >> 64), static_cast<uint64_t>(hash));
}

// --- the store ---------------------------------------------------------------------------------------------

Result<TemplateStore> TemplateStore::open(const std::string& folder, std::string name) {
  if (belongs_to_another(folder)) return fail("{} belongs to another user", folder);
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(folder).parent_path(), error);
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno(errno, "mkdir {}", folder);
  TemplateStore store;
  store.folder_ = SNUG_TRY(open_file(folder, O_RDONLY | O_DIRECTORY));
  SNUG_TRY(with_context(check_private(store.folder_.get()), folder));
  store.name_ = std::move(name);
  return store;
}

TemplateStore::TemplateStore(TemplateStore&& other) noexcept
    : folder_(std::move(other.folder_)),
      name_(std::move(other.name_)),
      unfinished_(std::exchange(other.unfinished_, {})) {}

TemplateStore& TemplateStore::operator=(TemplateStore&& other) noexcept {
  drop();
  folder_ = std::move(other.folder_);
  name_ = std::move(other.name_);
  unfinished_ = std::exchange(other.unfinished_, {});
  return *this;
}

TemplateStore::Files TemplateStore::find() {
  if (!folder_ || ::faccessat(folder_.get(), name_.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) != 0) return {};
  Files files{open_in(folder_.get(), name_, kState), open_in(folder_.get(), name_, kMemory),
              open_in(folder_.get(), name_, kTouched)};
  struct stat status {};
  if (!files.state || !files.memory || ::fstat(files.state.get(), &status) != 0 ||
      ::time(nullptr) - status.st_ctim.tv_sec > kLives) {
    forget();
    return {};
  }
  ::utimensat(folder_.get(), name_.c_str(), nullptr, 0);  // used: prune() takes others first
  return files;
}

std::string TemplateStore::note() const { return name_ + std::string(kNote); }

bool TemplateStore::seen() {
  if (!folder_) return false;
  struct stat status {};
  if (::fstatat(folder_.get(), note().c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0)
    return status.st_size == 0 || ::time(nullptr) - status.st_mtim.tv_sec > kLives;
  const UniqueFd made(
      ::openat(folder_.get(), note().c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (made) prune_notes();
  return false;
}

void TemplateStore::refuse() {
  if (!folder_) return;
  const UniqueFd file(
      ::openat(folder_.get(), note().c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600));
  constexpr std::string_view kRefused = "no template\n";
  if (file) (void)!::write(file.get(), kRefused.data(), kRefused.size());
}

Result<TemplateStore::Files> TemplateStore::begin() {
  if (!folder_) return fail("no templates are kept");
  drop();
  const std::string unfinished = fmt::format("{}{}", kUnfinished, ::getpid());
  remove_one(folder_.get(), unfinished);
  if (::mkdirat(folder_.get(), unfinished.c_str(), 0700) != 0)
    return fail_errno(errno, "mkdir {}", unfinished);
  unfinished_ = unfinished;
  const auto make = [&](const char* file) {
    return UniqueFd(::openat(folder_.get(), (unfinished + "/" + file).c_str(),
                             O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600));
  };
  Files files{make(kState), make(kMemory), UniqueFd()};
  if (!files.state || !files.memory) {
    const int error = errno;
    drop();
    return fail_errno(error, "open {}", unfinished);
  }
  return files;
}

// Of two that are made at once the first stays.
Result<void> TemplateStore::keep() {
  if (unfinished_.empty()) return fail("no template is being made");
  if (::renameat(folder_.get(), unfinished_.c_str(), folder_.get(), name_.c_str()) != 0) {
    const int error = errno;
    drop();
    if (error == ENOTEMPTY || error == EEXIST) return {};
    return fail_errno(error, "rename {}", name_);
  }
  unfinished_.clear();
  prune();
  return {};
}

void TemplateStore::keep_touched(std::string_view touched) {
  if (!folder_) return;
  const std::string unfinished = name_ + "/" + kTouchedNew;
  const UniqueFd file(::openat(folder_.get(), unfinished.c_str(),
                               O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600));
  // Another one does it, or the template has gone.
  if (!file) return;
  const bool whole =
      ::write(file.get(), touched.data(), touched.size()) == static_cast<ssize_t>(touched.size());
  if (!whole ||
      ::renameat(folder_.get(), unfinished.c_str(), folder_.get(), (name_ + "/" + kTouched).c_str()) != 0)
    ::unlinkat(folder_.get(), unfinished.c_str(), 0);
}

void TemplateStore::drop() {
  if (!unfinished_.empty()) remove_one(folder_.get(), std::exchange(unfinished_, {}));
}

void TemplateStore::forget() {
  if (folder_) remove_one(folder_.get(), name_);
}

void TemplateStore::leave() {
  folder_.reset();
  unfinished_.clear();
}

namespace {

// What is in the folder, the latest first.
struct Entry {
  timespec used;
  std::string name;
};

std::vector<Entry> list(int folder) {
  // A descriptor of its own: closedir() closes it.
  UniqueFd listing(::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::fdopendir(listing.get()), ::closedir);
  std::vector<Entry> entries;
  if (!dir) return entries;
  listing.release();
  while (const dirent* found = ::readdir(dir.get())) {  // NOLINT(concurrency-mt-unsafe): its own stream
    const std::string name = static_cast<const char*>(found->d_name);
    struct stat status {};
    if (!name.starts_with('.') && ::fstatat(folder, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0)
      entries.push_back({status.st_mtim, name});
  }
  std::ranges::sort(entries, [](const Entry& a, const Entry& b) {
    return std::pair(a.used.tv_sec, a.used.tv_nsec) > std::pair(b.used.tv_sec, b.used.tv_nsec);
  });
  return entries;
}

}  // namespace

void TemplateStore::prune() const {
  size_t count = 0;
  uint64_t bytes = 0;
  for (const Entry& entry : list(folder_.get())) {
    struct stat memory {};
    if (entry.name.starts_with(kUnfinished)) {
      if (::time(nullptr) - entry.used.tv_sec > kAbandoned) remove_one(folder_.get(), entry.name);
      continue;
    }
    if (::fstatat(folder_.get(), (entry.name + "/" + kMemory).c_str(), &memory, AT_SYMLINK_NOFOLLOW) != 0)
      continue;
    bytes += static_cast<uint64_t>(memory.st_blocks) * 512;
    // Guests that have mapped it keep it until they end.
    if (++count > kTemplatesMax || bytes > kBytesMax)
      if (entry.name != name_) remove_one(folder_.get(), entry.name);
  }
}

void TemplateStore::prune_notes() const {
  size_t count = 0;
  for (const Entry& entry : list(folder_.get()))
    if (entry.name.ends_with(kNote) && ++count > kNotesMax) ::unlinkat(folder_.get(), entry.name.c_str(), 0);
}

}  // namespace snug
