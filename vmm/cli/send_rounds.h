// The memory of a machine that runs, written to a stream in rounds: all of it, then what has changed, until
// what is left takes no longer than the machine may stand still. Main thread.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/cli/sent_machine.h"
#include "vmm/cli/stream_writer.h"

namespace snug::cli {

struct Downtime {
  std::chrono::milliseconds limit{300};
  bool must = false;  // where it cannot be kept, the machine is not sent at all
};

class SendRounds {
 public:
  // All are the caller's. `name`: of the machine, for what is said of it.
  SendRounds(SentMachine& machine, StreamWriter& stream, std::string name, const Downtime& downtime)
      : machine_(machine), stream_(stream), name_(std::move(name)), downtime_(downtime) {}

  // While it runs. Errors: those of both; it would stand still for too long, and must not.
  Result<void> run();
  // It stands still: what is left, and its state. `snapshot.json` and the end are the caller's. What it is
  // started for.
  Result<std::string> finish();

 private:
  using Clock = std::chrono::steady_clock;

  void count(Clock::time_point since, uint64_t bytes_before);
  double seconds_for(uint64_t pages) const;
  Result<void> rounds_are_over(uint64_t pages) const;

  SentMachine& machine_;
  StreamWriter& stream_;
  std::string name_;
  Downtime downtime_;
  int rounds_ = 0;
  bool memory_has_gone_ = false;
  std::vector<uint64_t> left_;  // pages that were written and have not gone
  // Of all rounds, for the rate.
  uint64_t bytes_ = 0;
  double seconds_ = 0;
};

}  // namespace snug::cli
