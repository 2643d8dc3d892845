// The user's snapshots: ${XDG_DATA_HOME:-~/.local/share}/snug/snapshots, a folder for each, mode 0700:
//
//   NAME/spec.yaml      the spec of the machine, every default filled in
//   NAME/state          of vCPUs and devices (vmm/core/state.h)
//   NAME/memory         its RAM (vmm/core/memory_image.h)
//   NAME/disk1, ...     copies of disks that the guest writes to, by their place in the spec
//   NAME/overlay1, ...  what the guest has written to ephemeral ones (devices/virtio/block/disk_image.h)
//   NAME/snapshot.json  what it is of, for people, and which disks it needs that are elsewhere
//
// Nobody writes to any of them once it is there.
//
// A name with a slash in it is the path of such a folder. Main thread.
#pragma once

#include <cstdint>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug::cli {

struct StoredSnapshot {
  std::string name;
  std::filesystem::path folder;
  std::string machine;        // that it was made of
  nlohmann::json disks;       // that it needs and has not (snapshot_disks.h)
  std::string commands;       // that it goes on with (vmm/run/saved_commands.h); "": none
  uint64_t memory_bytes = 0;  // of its RAM
  uint64_t disk_bytes = 0;    // that it takes
  time_t made = 0;
};

// By name. Errors: the folder cannot be read.
Result<std::vector<StoredSnapshot>> stored_snapshots();
// Errors: there is none of that name; it is no snapshot.
Result<StoredSnapshot> find_snapshot(const std::string& name);
// Errors: as find_snapshot(); the file system. Machines that were restored of it go on.
Result<void> remove_snapshot(const std::string& name);

// A file for what passes, where snapshots are, that goes with its descriptor. Errors: the file system.
Result<UniqueFd> passing_file();

// One that is being made, under a name of its own; gone unless it is kept.
class NewSnapshot {
 public:
  // Errors: the name cannot be one, or is taken; the file system.
  static Result<NewSnapshot> begin(const std::string& name);
  // One that nobody finds, and that is never kept: machines begin there while this lives. Errors: the file
  // system.
  static Result<NewSnapshot> passing();
  NewSnapshot(NewSnapshot&& other) noexcept;
  NewSnapshot& operator=(NewSnapshot&&) = delete;
  ~NewSnapshot();

  int state() const { return state_.get(); }
  int memory() const { return memory_.get(); }
  // An empty one more, open for reading and writing for as long as this lives.
  Result<int> add_file(const std::string& file);
  // One more with the contents of `from`, to which nobody may ever write: the same file where that can be.
  Result<void> add_contents(const std::string& file, const std::string& from);
  Result<void> write_file(const std::string& file, const std::string& text) const;
  // As it is now. Errors: it is none yet.
  Result<StoredSnapshot> as_stored() const;
  // All of it is on the disk, and can be found from now on. Errors: the disk; the name was taken meanwhile.
  Result<StoredSnapshot> keep();

 private:
  NewSnapshot() = default;
  Result<void> make_folder(const std::filesystem::path& parent);
  std::string name_;
  std::filesystem::path target_;
  std::filesystem::path folder_;  // "": it is nobody's any more
  UniqueFd state_;
  UniqueFd memory_;
  std::vector<UniqueFd> others_;
};

}  // namespace snug::cli
