// What the keys of a disk mean together, and which files can be memory of a guest.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/spec/spec.h"

namespace snug {

// A file that guests write to as memory is as long as their memory is: a multiple of this, bytes. (Linux
// wants it of persistent memory.)
constexpr uint64_t kPmemGranule = uint64_t{2} << 20;

struct PmemProblem {
  std::string what;
  std::string hint;  // what to do about it; may be empty
};
// Nothing when a file can be memory of a guest.
std::optional<PmemProblem> pmem_problem(const struct stat& status, bool readonly);

struct DiskProblem {
  size_t disk = 0;       // the place of the one that it is about
  std::string_view key;  // "direct"; "": all of it
  std::string text;      // for a person
};
// What is wrong with them as a whole. Looks at files that are to be memory.
std::vector<DiskProblem> disk_problems(const std::vector<DiskSpec>& disks);

}  // namespace snug
