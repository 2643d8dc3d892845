#include "vmm/cli/snapshot_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

#include "vmm/base/cache_folder.h"
#include "vmm/base/sparse_file.h"
#include "vmm/spec/text.h"

namespace snug::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kAbout = "snapshot.json";
constexpr const char* kState = "state";
constexpr const char* kMemory = "memory";
constexpr size_t kNameMax = 64;

Result<fs::path> snapshots_folder() {
  const std::string data = data_folder();
  if (data.empty()) return fail_with_hint("there is no place for snapshots", "set HOME or XDG_DATA_HOME");
  return fs::path(data) / "snapshots";
}

bool is_path(const std::string& name) { return name.find('/') != std::string::npos; }

// As machines are called, so that no name is an option, a hidden file or a path.
Result<void> check_name(const std::string& name) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  };
  const bool good = !name.empty() && name.size() <= kNameMax && name.front() != '-' && name.front() != '.' &&
                    std::ranges::all_of(name, plain);
  if (good) return {};
  return fail("{}: a snapshot is called by letters, digits, '-', '_' and '.', at most {} of them",
              in_quotes(name), kNameMax);
}

Result<fs::path> folder_of(const std::string& name) {
  if (is_path(name)) return fs::absolute(name);
  SNUG_TRY(check_name(name));
  return SNUG_TRY(snapshots_folder()) / name;
}

uint64_t disk_bytes(const fs::path& folder) {
  uint64_t sum = 0;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    struct stat status {};
    if (::stat(at->path().c_str(), &status) == 0) sum += static_cast<uint64_t>(status.st_blocks) * 512;
  }
  return sum;
}

Result<StoredSnapshot> read_snapshot(const std::string& name, const fs::path& folder) {
  StoredSnapshot snapshot{.name = name, .folder = folder, .machine = {}};
  struct stat memory {};
  struct stat state {};
  if (::stat((folder / kMemory).c_str(), &memory) != 0 || ::stat((folder / kState).c_str(), &state) != 0)
    return fail("{} is no snapshot: it has no state or no memory", folder.string());
  snapshot.memory_bytes = static_cast<uint64_t>(memory.st_size);
  snapshot.made = state.st_mtime;
  snapshot.disk_bytes = disk_bytes(folder);
  std::ifstream file(folder / kAbout);
  const json about = json::parse(file, nullptr, false);
  if (!about.is_object()) return snapshot;
  if (const auto machine = about.find("machine"); machine != about.end() && machine->is_string())
    snapshot.machine = *machine;
  if (const auto disks = about.find("disks"); disks != about.end()) snapshot.disks = *disks;
  if (const auto commands = about.find("commands"); commands != about.end())
    snapshot.commands = commands->dump(-1, ' ', false, json::error_handler_t::replace);
  return snapshot;
}

Result<void> sync(int fd, const char* what) {
  if (::fsync(fd) != 0) return fail_errno(errno, "{}", what);
  return {};
}

}  // namespace

Result<std::vector<StoredSnapshot>> stored_snapshots() {
  const auto folder = SNUG_TRY(snapshots_folder());
  std::vector<StoredSnapshot> all;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (name.front() == '.') continue;
    if (auto snapshot = read_snapshot(name, at->path())) all.push_back(std::move(*snapshot));
  }
  if (error && error != std::errc::no_such_file_or_directory)
    return fail("{}: {}", folder.string(), error.message());
  std::ranges::sort(all, {}, &StoredSnapshot::name);
  return all;
}

Result<StoredSnapshot> find_snapshot(const std::string& name) {
  const auto folder = SNUG_TRY(folder_of(name));
  std::error_code error;
  if (fs::is_directory(folder, error)) return read_snapshot(name, folder);
  if (is_path(name)) return fail("{}: there is no such folder", name);
  std::vector<std::string> known;
  if (const auto all = stored_snapshots())
    for (const StoredSnapshot& snapshot : *all) known.push_back(snapshot.name);
  return fail_with_hint(fmt::format("there is no snapshot {}{}", in_quotes(name), did_you_mean(name, known)),
                        "snug snapshot list shows what there is");
}

Result<void> remove_snapshot(const std::string& name) {
  const StoredSnapshot snapshot = SNUG_TRY(find_snapshot(name));
  // What is half removed is nobody's snapshot any more.
  const fs::path gone = snapshot.folder.parent_path() /
                        fmt::format(".gone-{}-{}", snapshot.folder.filename().string(), ::getpid());
  std::error_code error;
  fs::rename(snapshot.folder, gone, error);
  if (!error) fs::remove_all(gone, error);
  if (error) return fail("{}: {}", snapshot.folder.string(), error.message());
  return {};
}

namespace {

// What a command that was killed has left, a while ago.
void remove_abandoned(const fs::path& parent) {
  constexpr time_t kAbandoned = 3600;
  std::error_code error;
  for (fs::directory_iterator at(parent, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    struct stat status {};
    if (!name.starts_with(".new-") && !name.starts_with(".gone-")) continue;
    std::error_code ignored;
    if (::lstat(at->path().c_str(), &status) == 0 && S_ISDIR(status.st_mode) &&
        ::time(nullptr) - status.st_mtim.tv_sec > kAbandoned)
      fs::remove_all(at->path(), ignored);
  }
}

Result<void> make_ready(const fs::path& parent) {
  std::error_code error;
  if (belongs_to_another(parent.string()))
    return fail("{}: it is another user's; set HOME or XDG_DATA_HOME", parent.string());
  fs::create_directories(parent, error);
  if (error) return fail("{}: {}", parent.string(), error.message());
  remove_abandoned(parent);
  return {};
}

}  // namespace

// --- a new one -----------------------------------------------------------------------------------------

Result<UniqueFd> passing_file() {
  const auto parent = SNUG_TRY(snapshots_folder());
  SNUG_TRY(make_ready(parent));
  UniqueFd file(::open(parent.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (file) return file;
  // A file system that has none without a name.
  std::string path = (parent / ".new-XXXXXX").string();
  file = UniqueFd(::mkostemp(path.data(), O_CLOEXEC));
  if (!file || ::unlink(path.c_str()) != 0) return fail_errno(errno, "{}", path);
  return file;
}

Result<NewSnapshot> NewSnapshot::begin(const std::string& name) {
  NewSnapshot made;
  made.name_ = name;
  made.target_ = SNUG_TRY(folder_of(name));
  std::error_code error;
  if (fs::exists(made.target_, error))
    return fail_with_hint(fmt::format("there is a snapshot {} already", in_quotes(name)),
                          "give it another name, or: snug snapshot rm " + name);
  SNUG_TRY(made.make_folder(made.target_.parent_path()));
  return made;
}

Result<NewSnapshot> NewSnapshot::passing() {
  NewSnapshot made;
  const auto parent = SNUG_TRY(snapshots_folder());
  SNUG_TRY(made.make_folder(parent));
  return made;
}

Result<void> NewSnapshot::make_folder(const fs::path& parent) {
  SNUG_TRY(make_ready(parent));
  std::string folder = (parent / ".new-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) return fail_errno(errno, "{}", folder);
  folder_ = folder;
  constexpr int kNew = O_RDWR | O_CREAT | O_EXCL;
  state_ = SNUG_TRY(open_file((folder_ / kState).string(), kNew, 0600));
  memory_ = SNUG_TRY(open_file((folder_ / kMemory).string(), kNew, 0600));
  return {};
}

NewSnapshot::NewSnapshot(NewSnapshot&& other) noexcept
    : name_(std::move(other.name_)),
      target_(std::move(other.target_)),
      folder_(std::exchange(other.folder_, {})),
      state_(std::move(other.state_)),
      memory_(std::move(other.memory_)),
      others_(std::move(other.others_)) {}

NewSnapshot::~NewSnapshot() {
  std::error_code error;
  if (!folder_.empty()) fs::remove_all(folder_, error);
}

Result<int> NewSnapshot::add_file(const std::string& file) {
  others_.push_back(SNUG_TRY(open_file((folder_ / file).string(), O_RDWR | O_CREAT | O_EXCL, 0600)));
  return others_.back().get();
}

Result<void> NewSnapshot::add_contents(const std::string& file, const std::string& from) {
  if (::link(from.c_str(), (folder_ / file).c_str()) == 0) return {};
  // On another file system, or more names than it takes.
  const UniqueFd source = SNUG_TRY(open_file(from, O_RDONLY));
  struct stat status {};
  if (::fstat(source.get(), &status) != 0) return fail_errno(errno, "{}", from);
  const int copy = SNUG_TRY(add_file(file));
  return copy_contents(source.get(), copy, static_cast<uint64_t>(status.st_size));
}

Result<void> NewSnapshot::write_file(const std::string& file, const std::string& text) const {
  const UniqueFd fd = SNUG_TRY(open_file((folder_ / file).string(), O_WRONLY | O_CREAT | O_EXCL, 0600));
  for (size_t at = 0; at < text.size();) {
    const ssize_t count = ::write(fd.get(), text.data() + at, text.size() - at);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "{}", file);
    at += static_cast<size_t>(count);
  }
  return sync(fd.get(), file.c_str());
}

Result<StoredSnapshot> NewSnapshot::as_stored() const { return read_snapshot(name_, folder_); }

Result<StoredSnapshot> NewSnapshot::keep() {
  SNUG_TRY(sync(memory_.get(), kMemory));
  SNUG_TRY(sync(state_.get(), kState));
  for (const UniqueFd& file : others_) SNUG_TRY(sync(file.get(), "a disk"));
  if (::renameat2(AT_FDCWD, folder_.c_str(), AT_FDCWD, target_.c_str(), RENAME_NOREPLACE) != 0)
    return fail_errno(errno, "{}", target_.string());
  folder_.clear();
  return read_snapshot(name_, target_);
}

}  // namespace snug::cli
