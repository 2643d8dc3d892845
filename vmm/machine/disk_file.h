// Opens what a disk of the spec names, and keeps others from writing to it meanwhile.
//
// Thread: any, before the machine is built.
#pragma once

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/machine/machine.h"
#include "vmm/spec/spec.h"

namespace snug {

// Fills `config` but for the descriptor. The lock (F_OFD_SETLK: shared for read-only disks, else exclusive)
// lasts as long as the descriptor. Errors: what open says; a file that another has locked; smaller than a
// sector.
Result<UniqueFd> open_disk(const DiskSpec& disk, DiskConfig& config);

}  // namespace snug
