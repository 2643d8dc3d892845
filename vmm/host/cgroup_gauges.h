// What the processes of a control group use, by files that were opened while they still could be: the
// machine's process tells it without being able to open anything.
//
// Thread: any, one at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug {

class CgroupGauges {
 public:
  // What the kernel does not count is left out.
  struct Reading {
    std::optional<uint64_t> cpu_us;     // used so far
    std::optional<uint64_t> periods;    // of cpu.max, in which there was something to run
    std::optional<uint64_t> throttled;  // of those, in which it was made to wait
    std::optional<uint64_t> throttled_us;
    std::optional<uint64_t> memory;      // now
    std::optional<uint64_t> memory_hit;  // how often it was at its limit and something was taken back
    std::optional<uint64_t> killed;      // processes, for want of memory
  };

  // None: of no group, reads nothing.
  CgroupGauges() = default;
  static CgroupGauges open(const std::string& folder);
  Reading read() const;

 private:
  UniqueFd cpu_stat_;
  UniqueFd memory_current_;
  UniqueFd memory_events_;
};

}  // namespace snug
