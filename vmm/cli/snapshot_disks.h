// The disks of a snapshot. What a guest can write to is copied into it; what it cannot, and what lies below
// the overlay of an ephemeral disk, stays where it is, and must be the same when a machine begins there. A
// machine that begins there writes to overlays of its own, so that the snapshot stays as it is.
//
// Main thread.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/cli/snapshot_store.h"
#include "vmm/spec/spec.h"

namespace snug::cli {

struct SnapshotDisks {
  std::vector<int> files;    // that the machine writes to, as its control interface wants them; NewSnapshot's
  nlohmann::json elsewhere;  // what stays where it is, for check_disks_elsewhere()
};

// Makes the files of a machine's disks. `spec`: the machine's; afterwards that of one that begins there, with
// paths of the snapshot's own disks relative to it. Errors: a disk that is gone; the file system.
Result<SnapshotDisks> add_disks(NewSnapshot& made, Spec& spec);

// Of a machine that is sent, which takes no disk along: those that stay where they are. Errors: one that the
// guest may write to.
Result<nlohmann::json> disks_elsewhere(const Spec& spec);
// Errors: one of them is gone, or is another one now.
Result<void> check_disks_elsewhere(const nlohmann::json& elsewhere);

// Whether it has a copy of a disk that lasted when it was saved.
bool has_own_disks(const std::filesystem::path& snapshot);

}  // namespace snug::cli
