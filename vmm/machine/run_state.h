// The states of a machine and the moves between them: the one table that says what may follow what.
// Thread: the loop's.
#pragma once

#include <string_view>

namespace snug {

enum class RunState {
  kCreated,  // built, no vCPU has run
  kRunning,
  kPaused,      // every vCPU is parked
  kStopping,    // vCPUs are on their way out
  kPoweredOff,  // the guest powered off, or said its exit status
  kReset,       // the guest asked for a reset
  kCrashed,     // triple fault or reported panic
  kFailed,      // the monitor or the host could not go on
  kKilled,      // ended from outside: signal, timeout, quit
};

std::string_view run_state_name(RunState state);
bool is_stopped(RunState state);

class RunStates {
 public:
  RunState current() const { return current_; }
  // True and the state changed when the table allows the move; false and nothing changed otherwise.
  [[nodiscard]] bool move_to(RunState next);

 private:
  RunState current_ = RunState::kCreated;
};

}  // namespace snug
