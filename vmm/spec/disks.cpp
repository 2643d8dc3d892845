#include "vmm/spec/disks.h"

#include <fmt/format.h>

namespace snug {
namespace {

// What a disk of mode pmem has no use for, and why.
void add_unfit_keys(const DiskSpec& disk, size_t place, std::vector<DiskProblem>& problems) {
  static const DiskSpec plain;
  const auto unless = [&](bool fits, std::string_view key, std::string_view why) {
    if (!fits) problems.push_back({place, key, fmt::format("{} does not go with mode: pmem: {}", key, why)});
  };
  unless(!disk.ephemeral, "ephemeral",
         "what the guest writes is in the file; readonly: true keeps it as it is");
  unless(!disk.direct, "direct", "the memory is the host's page cache");
  unless(!disk.thread, "thread", "the guest reads and writes without any thread of the host");
  unless(disk.serial.empty(), "serial", "the guest has no place for it");
  unless(disk.queues == plain.queues, "queues", "there is one, for flushes");
  unless(disk.queue_size == plain.queue_size, "queue_size", "there is one queue, for flushes");
}

}  // namespace

std::optional<PmemProblem> pmem_problem(const struct stat& status, bool readonly) {
  if (S_ISBLK(status.st_mode))
    return PmemProblem{"mode: pmem needs a file, and this is a block device", "leave mode out"};
  if (!S_ISREG(status.st_mode)) return PmemProblem{"mode: pmem needs a regular file", ""};
  if (status.st_size == 0) return PmemProblem{"is empty: memory has at least a byte", "truncate -s 1G FILE"};
  // A read-only one is filled with zeros. What a guest writes behind a file's end would be lost.
  if (!readonly && static_cast<uint64_t>(status.st_size) % kPmemGranule != 0)
    return PmemProblem{fmt::format("has {} bytes, and memory that the guest writes to is a multiple of 2 MiB",
                                   status.st_size),
                       "make it longer: truncate -s %2M FILE, or give it readonly: true"};
  return std::nullopt;
}

std::vector<DiskProblem> disk_problems(const std::vector<DiskSpec>& disks) {
  std::vector<DiskProblem> problems;
  for (size_t i = 0; i < disks.size(); ++i) {
    const DiskSpec& disk = disks[i];
    if (disk.path.empty()) problems.push_back({i, "", "path is missing"});
    if (disk.readonly && disk.ephemeral)
      problems.push_back(
          {i, "",
           "readonly and ephemeral exclude each other: the guest either cannot write, or what it "
           "writes is thrown away"});
    if (disk.mode != DiskMode::kPmem) continue;
    add_unfit_keys(disk, i, problems);
    struct stat status {};
    // Empty and missing ones are said of every file.
    if (disk.path.empty() || ::stat(disk.path.c_str(), &status) != 0 ||
        (S_ISREG(status.st_mode) && status.st_size == 0) || S_ISDIR(status.st_mode))
      continue;
    if (auto problem = pmem_problem(status, disk.readonly))
      problems.push_back({i, "path",
                          fmt::format("{}: {}{}{}", disk.path, problem->what,
                                      problem->hint.empty() ? "" : "; ", problem->hint)});
  }
  return problems;
}

}  // namespace snug
