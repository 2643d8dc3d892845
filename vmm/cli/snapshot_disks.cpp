#include "vmm/cli/snapshot_disks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "vmm/run/saved_ends.h"

namespace snug::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kNanoseconds = 1'000'000'000;

int64_t modified_ns(const struct stat& status) {
  return status.st_mtim.tv_sec * kNanoseconds + status.st_mtim.tv_nsec;
}

// By what another file in its place, or one that was written to, is told. A block device has no such time.
Result<json> identity_of(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0)
    return fail_errno(errno, "disk {}: a machine could not begin with this snapshot", path);
  json identity{{"path", path}};
  if (S_ISREG(status.st_mode)) {
    identity["bytes"] = status.st_size;
    identity["modified_ns"] = modified_ns(status);
  }
  return identity;
}

// The disk of a snapshot, to which nobody writes.
bool is_of_a_snapshot(const fs::path& disk) {
  std::error_code error;
  return disk.filename().string().starts_with("disk") && fs::exists(disk.parent_path() / "state", error) &&
         fs::exists(disk.parent_path() / "memory", error);
}

// Of a snapshot that nobody has kept: its machines alone have it open.
bool is_of_a_fork(const fs::path& disk) {
  std::error_code error;
  return disk.parent_path().filename().string().starts_with(".new-") && !fs::exists(disk, error);
}

}  // namespace

Result<SnapshotDisks> add_disks(NewSnapshot& made, Spec& spec) {
  SnapshotDisks disks{{}, json::array()};
  for (size_t i = 0; i < spec.disks.size(); ++i) {
    DiskSpec& disk = spec.disks[i];
    const std::string own = SavedEnds::disk_name(i);
    if (disk.readonly) {
      disks.elsewhere.push_back(SNUG_TRY(identity_of(disk.path)));
    } else if (is_of_a_fork(disk.path)) {
      return fail_with_hint(fmt::format("disk {}: this machine is a fork, and its disk nobody else's", i + 1),
                            "save the machine that it was forked from, and begin others with the snapshot");
    } else if (disk.ephemeral) {
      disks.files.push_back(SNUG_TRY(made.add_file(SavedEnds::overlay_name(i))));
      if (is_of_a_snapshot(disk.path)) {
        SNUG_TRY(with_context(made.add_contents(own, disk.path), "disk " + disk.path));
        disk.path = own;
      } else {
        disks.elsewhere.push_back(SNUG_TRY(identity_of(disk.path)));
      }
    } else if (disk.mode == DiskMode::kPmem) {
      return fail_with_hint(
          fmt::format("disk {}: a machine whose guest may write to a file as its memory cannot be saved",
                      disk.path),
          "leave mode: pmem out, or give the disk readonly: true");
    } else {
      disks.files.push_back(SNUG_TRY(made.add_file(own)));
      disk.path = own;
      disk.ephemeral = true;
      // Where its overlay will be there may be no direct I/O.
      disk.direct = false;
    }
  }
  // The disk that it is kept on is one of them.
  spec.storage.reset();
  return disks;
}

Result<json> disks_elsewhere(const Spec& spec) {
  json elsewhere = json::array();
  for (const DiskSpec& disk : spec.disks) {
    // It would be there once more, and what the guest writes there gone with it.
    if (!disk.readonly)
      return fail_with_hint(
          fmt::format("disk {}: disks that the guest may write to do not go with a machine that is sent",
                      disk.path),
          "stop it, copy the disk, and start it there; or give the disk readonly: true");
    elsewhere.push_back(SNUG_TRY(identity_of(disk.path)));
  }
  return elsewhere;
}

Result<void> check_disks_elsewhere(const json& elsewhere) {
  if (!elsewhere.is_array()) return {};
  for (const json& known : elsewhere) {
    if (!known.is_object() || !known.contains("path") || !known["path"].is_string()) continue;
    const auto path = known["path"].get<std::string>();
    const json now = SNUG_TRY(identity_of(path));
    if (now == known) continue;
    const bool same_size = known.contains("bytes") && now.contains("bytes") && known["bytes"] == now["bytes"];
    if (same_size && known.contains("modified_ns") && known["modified_ns"].is_number_integer())
      return fail_with_hint(fmt::format("disk {}: it was written to after the snapshot was made", path),
                            fmt::format("if it holds what it held then: touch -d @{}.{:09} {}",
                                        known["modified_ns"].get<int64_t>() / kNanoseconds,
                                        known["modified_ns"].get<int64_t>() % kNanoseconds, path));
    return fail_with_hint(fmt::format("disk {}: it is not the one that the snapshot was made with", path),
                          "put that one back; the snapshot has only what the guest had written");
  }
  return {};
}

bool has_own_disks(const fs::path& snapshot) {
  constexpr size_t kDisksMax = 16;
  std::error_code error;
  for (size_t i = 0; i < kDisksMax; ++i)
    if (fs::exists(snapshot / SavedEnds::disk_name(i), error)) return true;
  return false;
}

}  // namespace snug::cli
