#include "vmm/cli/image_store.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "vmm/base/cache_folder.h"
#include "vmm/base/unique_fd.h"
#include "vmm/cli/guest_images.h"
#include "vmm/cli/put.h"
#include "vmm/host/lock_holder.h"
#include "vmm/spec/text.h"

namespace snug::cli {
namespace {

namespace fs = std::filesystem;
using Names = std::map<std::string, std::string>;  // CACHE/NAME, and the folder of CACHE/images it leads to

constexpr size_t kKeyLength = 12;  // of TARGET-KEY

// Those of a folder; none when it cannot be read.
std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
    entries.push_back(*at);
  std::sort(entries.begin(), entries.end());
  return entries;
}

fs::path cache() { return cache_folder(); }

Names names_in_cache() {
  Names names;
  for (const auto& entry : entries_of(cache())) {
    std::error_code error;
    const auto target = fs::read_symlink(entry, error);
    if (!error && target.parent_path() == "images")
      names[entry.filename().string()] = target.filename().string();
  }
  return names;
}

// Everything below `top` once, links followed.
void visit(const fs::path& top, std::set<fs::path>& seen) {
  std::error_code error;
  const auto real = fs::canonical(top, error);
  if (error || !seen.insert(real).second || !fs::is_directory(real, error)) return;
  for (const auto& entry : entries_of(real)) visit(entry, seen);
}

uint64_t bytes_of(const std::set<fs::path>& files) {
  uint64_t bytes = 0;
  for (const auto& file : files) {
    struct stat status {};
    if (::lstat(file.c_str(), &status) == 0) bytes += static_cast<uint64_t>(status.st_blocks) * 512;
  }
  return bytes;
}

uint64_t bytes_below(const fs::path& folder) {
  std::set<fs::path> files{folder};
  std::error_code error;
  for (fs::recursive_directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
    files.insert(at->path());
  return bytes_of(files);
}

StoredImage describe(const std::string& name, const fs::path& folder, bool installed) {
  std::set<fs::path> files;
  visit(folder, files);
  struct stat status {};
  (void)::stat(folder.c_str(), &status);
  return {name, folder, installed, bytes_of(files), status.st_mtim.tv_sec};
}

// The folders of CACHE/images that links in this one lead to.
std::set<std::string> needs_of(const std::string& folder) {
  std::set<std::string> needs;
  for (const auto& entry : entries_of(cache() / "images" / folder)) {
    std::error_code error;
    const auto target = fs::read_symlink(entry, error);
    if (!error && target.string().starts_with("../")) needs.insert((++target.begin())->string());
  }
  return needs;
}

std::string target_of(const std::string& folder) {
  // ".TARGET.XXXXXX" of a build under way, "TARGET-KEY" of one that is done.
  if (folder.starts_with('.')) return folder.substr(1, folder.rfind('.') - 1);
  return folder.size() > kKeyLength + 1 ? folder.substr(0, folder.size() - kKeyLength - 1) : folder;
}

// The lock of a target, which its recipe holds while it makes one. Errors: held.
Result<UniqueFd> lock_target(const std::string& target) {
  const fs::path path = cache() / "images" / ("." + target + ".lock");
  UniqueFd lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (!lock) return fail_errno(errno, "{}", path.string());
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) return fail("{} is being made at the moment", target);
  return lock;
}

// Disks are locked by the machines that have them (vmm/host/disk_file.cpp).
Result<void> check_unused(const fs::path& folder) {
  for (const auto& entry : entries_of(folder)) {
    const UniqueFd file(::open(entry.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    if (!file || ::fcntl(file.get(), F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) continue;
    const std::string holder = lock_holder(file.get());
    return fail("a machine has {} open{}", entry.filename().string(), holder.empty() ? "" : ": " + holder);
  }
  return {};
}

// Out of everyone's sight first, under a name that a later build takes for what is left of an interrupted
// one.
Result<uint64_t> remove_folder(const std::string& folder, Force force) {
  const fs::path path = cache() / "images" / folder;
  const UniqueFd lock = SNUG_TRY(lock_target(target_of(folder)));
  if (force == Force::kNo) SNUG_TRY(check_unused(path));
  const uint64_t bytes = bytes_below(path);
  std::string aside = (cache() / "images" / ("." + target_of(folder) + ".XXXXXX")).string();
  if (::mkdtemp(aside.data()) == nullptr) return fail_errno(errno, "{}", aside);
  std::error_code error;
  fs::rename(path, aside, error);
  if (error) return fail("{}: {}", path.string(), error.message());
  fs::remove_all(aside, error);
  if (error) return fail("{}: {}", aside, error.message());
  return bytes;
}

std::string dependents_of(const std::string& folder, const Names& names) {
  std::string all;
  for (const auto& [name, other] : names)
    if (other != folder && needs_of(other).contains(folder)) all += (all.empty() ? "" : ", ") + name;
  return all;
}

}  // namespace

std::vector<StoredImage> stored_images() {
  std::vector<StoredImage> images;
  for (const auto& [name, folder] : names_in_cache()) {
    std::error_code error;
    const fs::path path = cache() / "images" / folder;
    if (fs::is_directory(path, error)) images.push_back(describe(name, path, false));
  }
  for (const auto& share : installed_images())
    for (const auto& entry : entries_of(share))
      images.push_back(describe(entry.filename().string(), entry, true));
  std::stable_sort(images.begin(), images.end(),
                   [](const auto& a, const auto& b) { return a.name < b.name; });
  return images;
}

Result<uint64_t> remove_image(const std::string& name, Force force) {
  const Names names = names_in_cache();
  const auto found = names.find(name);
  if (found == names.end()) {
    std::vector<std::string> known;
    for (const auto& image : stored_images()) {
      if (image.name == name)
        return fail("{} came with snug, in {}, and goes with it", name, image.folder.string());
      if (!image.installed) known.push_back(image.name);
    }
    return fail("there is no image {}{}", in_quotes(name), did_you_mean(name, known));
  }
  const std::string folder = found->second;
  if (const auto others = dependents_of(folder, names); force == Force::kNo && !others.empty())
    return fail_with_hint(fmt::format("{} is needed by {}", name, others),
                          "remove that first, or use --force");
  std::error_code error;
  uint64_t bytes = 0;
  if (fs::exists(cache() / "images" / folder, error))
    bytes = SNUG_TRY(with_context(remove_folder(folder, force), name));
  for (const auto& [other, its_folder] : names)
    if (its_folder == folder) fs::remove(cache() / other, error);
  return bytes;
}

Result<void> prune_images(Prune what,
                          const std::function<void(const std::string& name, uint64_t bytes)>& removed) {
  const Names names = names_in_cache();
  // What names lead to, directly and through other images.
  std::vector<std::string> open;
  if (what == Prune::kSuperseded)
    for (const auto& [name, folder] : names) open.push_back(folder);
  std::set<std::string> wanted;
  while (!open.empty()) {
    const std::string folder = open.back();
    open.pop_back();
    if (!wanted.insert(folder).second) continue;
    for (const auto& needed : needs_of(folder)) open.push_back(needed);
  }
  for (const auto& entry : entries_of(cache() / "images")) {
    const std::string folder = entry.filename().string();
    std::error_code error;
    if (wanted.contains(folder) || !fs::is_directory(entry, error)) continue;
    const auto bytes = remove_folder(folder, Force::kNo);
    if (bytes)
      removed(folder, *bytes);
    else
      put(stderr, "snug: {} stays: {}\n", folder, bytes.error().text());
  }
  std::error_code error;
  for (const auto& [name, folder] : names)
    if (!fs::exists(cache() / "images" / folder, error)) fs::remove(cache() / name, error);
  return {};
}

}  // namespace snug::cli
