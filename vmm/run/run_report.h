// How a machine ended.
#pragma once

#include <cstdint>
#include <string>

#include "vmm/machine/exit_stats.h"
#include "vmm/machine/run_state.h"

namespace snug {

// Exit statuses of `snug run` (snug(1), "Exit status").
constexpr int kStatusPanic = 123;
constexpr int kStatusTimeout = 124;
constexpr int kStatusFailure = 125;

// The same, as far as it goes beyond the machine's own process.
struct MachineEnd {
  int exit_status = kStatusFailure;
  std::string message;  // one line, or ""
};

struct RunReport {
  RunState state = RunState::kFailed;
  int exit_status = kStatusFailure;
  std::string message;  // one line for a person, "" when there is nothing to say
  std::string detail;   // registers, console tail; several lines or ""
  ExitStats exits;      // of all boots together
  uint32_t boots = 0;
  uint64_t cpu_ns_at_first_run = 0;  // of the first boot
};

}  // namespace snug
