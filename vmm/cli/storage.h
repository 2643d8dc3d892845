// Storage that machines of container images keep under their names: a disk each, on which the guest writes
// what else would be in its memory. In ${XDG_DATA_HOME:-~/.local/share}/snug/storage.
//
// Main thread, before others exist.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "vmm/base/result.h"

namespace snug::cli {

// What the guest finds the disk by.
inline constexpr const char* kStorageSerial = "snug-storage";

// The disk of that machine with that size, made by mke2fs(8) when it is not there; a smaller one grows (its
// file system in the guest, which does that as it starts). Errors: no folder, no room, no mke2fs; the one
// that is there is larger.
Result<std::filesystem::path> storage_disk(const std::string& machine, uint64_t bytes);

bool has_storage(const std::string& machine);
// With all that is in it. Errors: there is none; a machine uses it.
Result<void> remove_storage(const std::string& machine);

}  // namespace snug::cli
