#include "vmm/control/vm_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>
#include <tuple>

#include "vmm/base/cache_folder.h"
#include "vmm/base/log.h"
#include "vmm/base/socket_address.h"

namespace snug {
namespace {

constexpr const char* kLock = "lock";
constexpr const char* kKeep = "keep";
constexpr const char* kEnd = "exit.json";
constexpr const char* kBefore = ".before";
constexpr const char* kCgroup = "cgroup";
constexpr std::array kLogs{"console.log", "output.log"};

// Those who look whether a machine is alive hold its lock for an instant. Many short pauses: somebody who
// looks all the time leaves gaps, and one of them must be met.
constexpr int kLockTries = 300;
constexpr std::chrono::milliseconds kLockPause{1};

Result<void> own_folder(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno(errno, "{}", path);
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) return fail_errno(errno, "{}", path);
  if (!S_ISDIR(status.st_mode) || status.st_uid != ::geteuid() || (status.st_mode & 0022) != 0)
    return fail_with_hint(path + " is not a folder that only this user may write to",
                          "remove it, or set XDG_RUNTIME_DIR to a folder of yours");
  return {};
}

bool is_there(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

bool is_folder(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == ::geteuid();
}

// As own_folder() makes it.
bool is_own_folder(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == ::geteuid() &&
         (status.st_mode & 0022) == 0;
}

bool is_same(const std::string& path, const std::string& other) {
  struct stat one {};
  struct stat two {};
  return ::stat(path.c_str(), &one) == 0 && ::stat(other.c_str(), &two) == 0 && one.st_dev == two.st_dev &&
         one.st_ino == two.st_ino;
}

tl::unexpected<Error> fail_name_taken(const std::string& name, int pid) {
  return fail_with_hint(fmt::format("a machine named {} is running (pid {})", name, pid),
                        fmt::format("stop it (snug stop {}) or give this one another --name", name));
}

std::vector<std::string> entries_of(int directory) {
  std::vector<std::string> names;
  const int copy = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* listing = copy < 0 ? nullptr : ::fdopendir(copy);
  if (listing == nullptr) return names;
  while (const dirent* entry = ::readdir(listing)) {  // NOLINT(concurrency-mt-unsafe): a stream of our own
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  ::closedir(listing);
  return names;
}

std::string read_small(int directory, const char* file) {
  const UniqueFd fd(::openat(directory, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return {};
  std::string text(65536, '\0');
  const ssize_t count = ::read(fd.get(), text.data(), text.size());
  text.resize(count > 0 ? static_cast<size_t>(count) : 0);
  return text;
}

Result<void> write_small(int directory, const char* file, const std::string& text) {
  const UniqueFd fd(::openat(directory, file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return fail_errno(errno, "{}", file);
  const ssize_t count = ::write(fd.get(), text.data(), text.size());
  if (count != static_cast<ssize_t>(text.size())) return fail_errno(count < 0 ? errno : ENOSPC, "{}", file);
  return {};
}

enum class Busy { kGiveUp, kWait };

// What was made for a machine that has ended. A killed warden's other processes go some milliseconds after
// it. Errors: they have not yet; who comes later tries again.
Result<void> drop_cgroup(int directory, Busy busy) {
  const std::string folder = read_small(directory, kCgroup);
  // Nothing else is removed, whatever is in the file.
  if (folder.starts_with('/') && folder.substr(folder.rfind('/')).starts_with("/snug-")) {
    int tries = busy == Busy::kWait ? kLockTries : 1;
    while (::rmdir(folder.c_str()) != 0 && errno != ENOENT) {
      if (errno != EBUSY || --tries == 0) return fail_errno(errno, "remove the control group {}", folder);
      std::this_thread::sleep_for(kLockPause);
    }
  }
  ::unlinkat(directory, kCgroup, 0);
  return {};
}

// Removes a directory whose lock the caller holds; the lock goes last.
Result<void> remove_locked(int directory, const std::string& path) {
  SNUG_TRY(drop_cgroup(directory, Busy::kWait));
  for (const auto& name : entries_of(directory))
    if (name != kLock && ::unlinkat(directory, name.c_str(), 0) != 0)
      return fail_errno(errno, "{}/{}", path, name);
  if (::unlinkat(directory, kLock, 0) != 0 && errno != ENOENT) return fail_errno(errno, "{}/{}", path, kLock);
  // Not empty: somebody takes the name anew at this moment.
  if (::rmdir(path.c_str()) != 0 && errno != ENOENT && errno != ENOTEMPTY)
    return fail_errno(errno, "{}", path);
  return {};
}

// Takes a directory's lock without waiting. The lock that counts is the one that is still there: its holder
// before may have removed it.
UniqueFd try_lock(int directory, bool create) {
  UniqueFd lock(::openat(directory, kLock, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0), 0600));
  if (!lock || ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) return {};
  struct stat mine {};
  struct stat there {};
  if (::fstat(lock.get(), &mine) != 0 || ::fstatat(directory, kLock, &there, 0) != 0 ||
      mine.st_ino != there.st_ino || mine.st_dev != there.st_dev)
    return {};
  return lock;
}

bool has_file(int directory, const char* file) { return ::faccessat(directory, file, F_OK, 0) == 0; }

void read_end(int directory, FoundVm& vm) {
  const auto end = nlohmann::json::parse(read_small(directory, kEnd), nullptr, false);
  if (!end.is_object()) return;
  if (const auto status = end.find("exit_status"); status != end.end() && status->is_number_integer())
    vm.exit_status = status->get<int>();
  if (const auto message = end.find("message"); message != end.end() && message->is_string())
    vm.end_message = message->get<std::string>();
}

// Looks at one directory; nothing when it was only a dead machine's, which is gone now.
std::optional<FoundVm> look_at(const std::string& folder, const std::string& name) {
  FoundVm vm{.name = name, .path = folder + "/" + name};
  const UniqueFd directory(::open(vm.path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (!directory) return std::nullopt;
  const bool locked_once = has_file(directory.get(), kLock);
  const UniqueFd lock = try_lock(directory.get(), false);
  if (lock) {
    if (!has_file(directory.get(), kKeep)) {
      (void)remove_locked(directory.get(), vm.path);
      return std::nullopt;
    }
    (void)drop_cgroup(directory.get(), Busy::kGiveUp);
    read_end(directory.get(), vm);
    return vm;
  }
  // No lock yet, or not any more: a machine that is just taking its name, or leaving it.
  if (!locked_once) return std::nullopt;
  vm.alive = true;
  vm.pid = std::atoi(read_small(directory.get(), kLock).c_str());
  return vm;
}

}  // namespace

std::vector<std::string> machine_places() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");  // NOLINT(concurrency-mt-unsafe): early
  return machine_places(runtime, fmt::format("/run/user/{}", ::geteuid()),
                        fmt::format("/tmp/snug-{}", ::geteuid()));
}

std::vector<std::string> machine_places(const char* runtime, const std::string& session,
                                        const std::string& lasting) {
  const std::string chosen = runtime != nullptr && *runtime == '/' ? runtime : "";
  if (!chosen.empty() && is_there(chosen) && !is_same(chosen, session) && !belongs_to_another(chosen))
    return {chosen + "/snug"};
  if (is_folder(session)) return {lasting, session + "/snug"};
  return {lasting};
}

Result<std::string> machines_folder(const std::vector<std::string>& places) {
  std::optional<Error> first;
  for (const std::string& place : places) {
    auto made = own_folder(place);
    if (made) return place;
    if (!first) first = std::move(made.error());
  }
  return tl::unexpected(std::move(*first).with_context("the folder of running machines"));
}

Result<VmDirectory> VmDirectory::create(const std::string& name, Keep keep,
                                        const std::vector<std::string>& places) {
  const std::string folder = SNUG_TRY(machines_folder(places));
  VmDirectory vm;
  vm.name_ = name;
  vm.path_ = folder + "/" + name;
  vm.keep_ = keep;
  for (int attempt = 0; attempt < kLockTries; ++attempt) {
    if (::mkdir(vm.path_.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno(errno, "{}", vm.path_);
    vm.directory_ = UniqueFd(::open(vm.path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    if (vm.directory_) vm.lock_ = try_lock(vm.directory_.get(), true);
    if (vm.lock_) break;
    std::this_thread::sleep_for(kLockPause);
  }
  if (!vm.directory_) return fail_errno(errno, "{}", vm.path_);
  if (!vm.lock_) return fail_name_taken(name, std::atoi(read_small(vm.directory_.get(), kLock).c_str()));
  SNUG_TRY(vm.check_other_places(places));
  SNUG_TRY(with_context(vm.take_over(), vm.path_));
  (void)::flock(vm.directory_.get(), LOCK_SH | LOCK_NB);
  return vm;
}

Result<VmDirectory> VmDirectory::of_another(const std::string& path, Keep keep) {
  VmDirectory vm;
  vm.path_ = path;
  vm.name_ = path.substr(path.rfind('/') + 1);
  vm.keep_ = keep;
  vm.directory_ = SNUG_TRY(open_file(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  return vm;
}

// With our own lock held: of two that take a name in two places at once, at most one gets it.
Result<void> VmDirectory::check_other_places(const std::vector<std::string>& places) {
  for (const std::string& place : places) {
    if (path_ == place + "/" + name_ || !is_own_folder(place)) continue;
    const auto other = look_at(place, name_);
    if (!other) continue;
    if (!other->alive) {
      (void)remove_machine(*other);
      continue;
    }
    // What another machine has left here stays.
    if (entries_of(directory_.get()).size() <= 1) (void)remove_locked(directory_.get(), path_);
    lock_.reset();
    return fail_name_taken(name_, other->pid);
  }
  return {};
}

Result<void> VmDirectory::take_over() const {
  const int directory = directory_.get();
  if (auto dropped = drop_cgroup(directory, Busy::kWait); !dropped) log_warn("{}", dropped.error().text());
  for (const auto& file : entries_of(directory))
    if (file != kLock && std::find(kLogs.begin(), kLogs.end(), file) == kLogs.end() &&
        ::unlinkat(directory, file.c_str(), 0) != 0)
      return fail_errno(errno, "{}", file);
  for (const std::string log : kLogs) ::renameat(directory, log.c_str(), directory, (log + kBefore).c_str());
  SNUG_TRY(write_small(directory, kLock, fmt::format("{}\n", ::getpid())));
  if (keep_ == Keep::kYes) SNUG_TRY(write_small(directory, kKeep, ""));
  return {};
}

VmDirectory::~VmDirectory() {
  if (!lock_) return;
  if (has_file(directory_.get(), kKeep) && has_file(directory_.get(), kEnd)) {
    for (const auto& file : entries_of(directory_.get()))
      if (file.ends_with(".sock")) ::unlinkat(directory_.get(), file.c_str(), 0);
    (void)drop_cgroup(directory_.get(), Busy::kGiveUp);
    return;
  }
  if (auto removed = remove_locked(directory_.get(), path_); !removed)
    log_info("cannot remove {}", removed.error().text());
}

Result<void> VmDirectory::write_file(const std::string& file, const std::string& text) const {
  return with_context(write_small(directory_.get(), file.c_str(), text), path_);
}

Result<void> VmDirectory::remember_cgroup(const std::string& folder) const {
  return write_file(kCgroup, folder);
}

Result<UniqueFd> VmDirectory::listen(const std::string& file) const {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return fail_errno(errno, "socket");
  const sockaddr_un address = SNUG_TRY(socket_address(directory_.get(), file));
  // The mode of the inode at bind: nobody gets in between.
  ::fchmod(socket.get(), 0600);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(socket.get(), 128) != 0)
    return fail_errno(errno, "{}/{}", path_, file);
  return socket;
}

void VmDirectory::leave() {
  directory_.reset();
  lock_.reset();
}

void VmDirectory::record_end(int exit_status, const std::string& message) const {
  if (keep_ == Keep::kNo) return;
  const nlohmann::json end{{"exit_status", exit_status}, {"message", message}};
  const auto text = end.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  if (auto written = write_file(kEnd, text); !written) log_warn("{}", written.error().text());
}

Result<std::vector<FoundVm>> list_machines(const std::vector<std::string>& places) {
  std::vector<FoundVm> machines;
  for (const std::string& place : places) {
    if (!is_own_folder(place)) continue;
    const UniqueFd directory(::open(place.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory && errno == ENOENT) continue;
    if (!directory) return fail_errno(errno, "{}", place);
    for (const auto& name : entries_of(directory.get()))
      if (auto vm = look_at(place, name)) machines.push_back(std::move(*vm));
  }
  // Of one name, that which runs.
  std::stable_sort(machines.begin(), machines.end(), [](const FoundVm& a, const FoundVm& b) {
    return std::tie(a.name, b.alive) < std::tie(b.name, a.alive);
  });
  const auto same = [](const FoundVm& a, const FoundVm& b) { return a.name == b.name; };
  machines.erase(std::unique(machines.begin(), machines.end(), same), machines.end());
  return machines;
}

Result<FoundVm> find_machine(const std::string& name, const std::vector<std::string>& places) {
  std::string names;
  for (auto& vm : SNUG_TRY(list_machines(places))) {
    if (vm.name == name) return vm;
    names += (names.empty() ? "" : ", ") + vm.name;
  }
  return fail("no machine named {}; {}", name, names.empty() ? "none is running" : "there are: " + names);
}

Result<void> remove_machine(const FoundVm& vm) {
  const UniqueFd directory(::open(vm.path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (!directory) return fail_errno(errno, "{}", vm.path);
  UniqueFd lock;
  for (int attempt = 0; attempt < kLockTries && !lock; ++attempt) {
    if (attempt > 0) std::this_thread::sleep_for(kLockPause);
    lock = try_lock(directory.get(), false);
  }
  if (!lock)
    return fail_with_hint(
        fmt::format("{} is running", vm.name),
        fmt::format("stop it first: snug stop {} (or snug rm --force {})", vm.name, vm.name));
  return remove_locked(directory.get(), vm.path);
}

bool wait_for_end(const FoundVm& vm, std::optional<int> timeout_ms) {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + std::chrono::milliseconds(timeout_ms.value_or(0));
  const UniqueFd directory(::open(vm.path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  const UniqueFd lock(directory ? ::openat(directory.get(), kLock, O_RDONLY | O_CLOEXEC) : -1);
  if (!lock) return true;
  if (!timeout_ms) {
    while (::flock(lock.get(), LOCK_SH) != 0 && errno == EINTR) continue;
    return true;
  }
  while (::flock(lock.get(), LOCK_SH | LOCK_NB) != 0) {
    if (Clock::now() >= deadline) return false;
    std::this_thread::sleep_for(kLockPause);
  }
  return true;
}

Result<UniqueFd> connect_to(const FoundVm& vm, const std::string& file) {
  const UniqueFd directory(::open(vm.path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (!directory) return fail_errno(errno, "{}", vm.path);
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail_errno(errno, "socket");
  const sockaddr_un address = SNUG_TRY(socket_address(directory.get(), file));
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(errno, "{}/{}", vm.path, file);
  return socket;
}

std::string unused_name(const std::string& prefix) {
  uint32_t random = 0;
  while (::getrandom(&random, sizeof random, 0) != static_cast<ssize_t>(sizeof random)) continue;
  return fmt::format("{}-{:06x}", prefix, random & 0xffffff);
}

}  // namespace snug
