#include "vmm/machine/run_state.h"

#include <algorithm>
#include <array>
#include <utility>

namespace snug {
namespace {

using enum RunState;
constexpr std::array kMoves{
    std::pair{kCreated, kRunning},     std::pair{kCreated, kStopping}, std::pair{kRunning, kPaused},
    std::pair{kPaused, kRunning},      std::pair{kRunning, kStopping}, std::pair{kPaused, kStopping},
    std::pair{kStopping, kPoweredOff}, std::pair{kStopping, kReset},   std::pair{kStopping, kCrashed},
    std::pair{kStopping, kFailed},     std::pair{kStopping, kKilled},
};

}  // namespace

std::string_view run_state_name(RunState state) {
  switch (state) {
    case kCreated:
      return "created";
    case kRunning:
      return "running";
    case kPaused:
      return "paused";
    case kStopping:
      return "stopping";
    case kPoweredOff:
      return "powered off";
    case kReset:
      return "reset";
    case kCrashed:
      return "crashed";
    case kFailed:
      return "failed";
    case kKilled:
      return "killed";
  }
  return "unknown";
}

bool is_stopped(RunState state) {
  return state == kPoweredOff || state == kReset || state == kCrashed || state == kFailed || state == kKilled;
}

bool RunStates::move_to(RunState next) {
  if (std::find(kMoves.begin(), kMoves.end(), std::pair{current_, next}) == kMoves.end()) return false;
  current_ = next;
  return true;
}

}  // namespace snug
