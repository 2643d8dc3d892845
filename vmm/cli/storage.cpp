#include "vmm/cli/storage.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

#include "vmm/base/cache_folder.h"
#include "vmm/base/unique_fd.h"
#include "vmm/host/lock_holder.h"
#include "vmm/host/passt.h"
#include "vmm/host/spawn.h"
#include "vmm/spec/units.h"

namespace snug::cli {
namespace {

namespace fs = std::filesystem;

Result<fs::path> storage_folder() {
  const std::string data = data_folder();
  if (data.empty()) return fail("there is no folder for storage: neither HOME nor XDG_DATA_HOME is set");
  const fs::path folder = fs::path(data) / "storage";
  if (belongs_to_another(folder.string()))
    return fail_with_hint(fmt::format("{} belongs to another user", folder.string()),
                          "sudo -H, or set XDG_DATA_HOME");
  return folder;
}

fs::path disk_of(const fs::path& folder, const std::string& machine) { return folder / (machine + ".ext4"); }

// By those who make, enlarge or remove one. A machine that runs holds the disk's own lock.
Result<UniqueFd> lock_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return fail("make {}: {}", folder.string(), error.message());
  auto file = SNUG_TRY(open_file((folder / ".lock").string(), O_RDWR | O_CREAT, 0600));
  while (::flock(file.get(), LOCK_EX) != 0)
    if (errno != EINTR) return fail_errno(errno, "lock {}", folder.string());
  return file;
}

// A user's PATH does not have those where it lies.
std::string find_mke2fs() {
  std::string program = find_program("mke2fs");
  for (const char* path : {"/usr/sbin/mke2fs", "/sbin/mke2fs"})
    if (program.empty() && ::access(path, X_OK) == 0) program = path;
  return program;
}

// What it has said, when it fails.
Result<void> run_program(const SpawnRequest& request, int said) {
  const auto pid = spawn(request);
  if (!pid) return tl::unexpected(pid.error().error);
  int status = 0;
  while (::waitpid(*pid, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  std::array<char, 1024> text{};
  const ssize_t count = ::pread(said, text.data(), text.size() - 1, 0);
  return fail("{}: {}", request.program, count > 0 ? std::string(text.data()) : "it has failed");
}

// Zeros of a new file are zeros: nothing has to be written for them, here or in the guest.
Result<void> make_disk(const fs::path& path, uint64_t bytes) {
  const std::string program = find_mke2fs();
  if (program.empty())
    return fail_with_hint("mke2fs, which makes the file system of storage, is not here",
                          "install it: sudo apt install e2fsprogs");
  const fs::path half = path.string() + ".half";
  auto made = [&]() -> Result<void> {
    const auto file = SNUG_TRY(open_file(half.string(), O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600));
    if (::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0)
      return fail_errno(errno, "{} with {}", half.string(), format_size(bytes));
    const UniqueFd said(::memfd_create("mke2fs", MFD_CLOEXEC));
    if (!said) return fail_errno(errno, "memfd_create");
    SNUG_TRY(run_program({.program = program,
                          .arguments = {"mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-E",
                                        "lazy_itable_init=0,lazy_journal_init=1", half.string()},
                          .output = said.get()},
                         said.get()));
    if (::rename(half.c_str(), path.c_str()) != 0) return fail_errno(errno, "rename {}", half.string());
    return {};
  }();
  if (!made) ::unlink(half.c_str());
  return made;
}

}  // namespace

Result<fs::path> storage_disk(const std::string& machine, uint64_t bytes) {
  const fs::path folder = SNUG_TRY(storage_folder());
  const fs::path path = disk_of(folder, machine);
  const auto held = SNUG_TRY(lock_folder(folder));
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    SNUG_TRY(with_context(make_disk(path, bytes), "storage of " + machine));
    return path;
  }
  const auto there = static_cast<uint64_t>(status.st_size);
  if (bytes < there)
    return fail_with_hint(
        fmt::format("the storage of {} has {}, and can only grow", machine, format_size(there)),
        fmt::format("storage: {}; or begin anew: snug rm --storage {}", format_size(there), machine));
  if (bytes > there && ::truncate(path.c_str(), static_cast<off_t>(bytes)) != 0)
    return fail_errno(errno, "{} with {}", path.string(), format_size(bytes));
  return path;
}

bool has_storage(const std::string& machine) {
  const auto folder = storage_folder();
  std::error_code error;
  return folder && fs::is_regular_file(disk_of(*folder, machine), error);
}

Result<void> remove_storage(const std::string& machine) {
  const fs::path folder = SNUG_TRY(storage_folder());
  const fs::path path = disk_of(folder, machine);
  const auto held = SNUG_TRY(lock_folder(folder));
  if (::access(path.c_str(), F_OK) != 0) return fail("{} has no storage", machine);
  const auto file = SNUG_TRY(open_file(path.string(), O_RDWR | O_NOFOLLOW));
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(file.get(), F_OFD_SETLK, &lock) != 0 && (errno == EAGAIN || errno == EACCES)) {
    const std::string holder = lock_holder(file.get());
    return fail_with_hint(
        fmt::format("the storage of {} is in use{}", machine, holder.empty() ? "" : ": " + holder),
        "stop that machine first");
  }
  if (::unlink(path.c_str()) != 0) return fail_errno(errno, "remove {}", path.string());
  return {};
}

}  // namespace snug::cli
