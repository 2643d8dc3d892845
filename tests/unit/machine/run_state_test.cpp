#include "vmm/machine/run_state.h"

#include <gtest/gtest.h>

namespace snug {
namespace {

using enum RunState;

TEST(RunStates, TheUsualLife) {
  RunStates states;
  for (const RunState next : {kRunning, kPaused, kRunning, kStopping, kPoweredOff}) {
    EXPECT_TRUE(states.move_to(next)) << run_state_name(next);
    EXPECT_EQ(states.current(), next);
  }
  EXPECT_TRUE(is_stopped(states.current()));
}

TEST(RunStates, NothingFollowsAnEnd) {
  for (const RunState end : {kPoweredOff, kReset, kCrashed, kFailed, kKilled}) {
    RunStates states;
    ASSERT_TRUE(states.move_to(kRunning) && states.move_to(kStopping) && states.move_to(end));
    for (const RunState next :
         {kCreated, kRunning, kPaused, kStopping, kPoweredOff, kReset, kCrashed, kFailed, kKilled})
      EXPECT_FALSE(states.move_to(next));
    EXPECT_EQ(states.current(), end);
  }
}

TEST(RunStates, AMachineIsNotPausedBeforeItRuns) {
  RunStates states;
  EXPECT_FALSE(states.move_to(kPaused));
  EXPECT_FALSE(states.move_to(kPoweredOff));
  EXPECT_EQ(states.current(), kCreated);
}

}  // namespace
}  // namespace snug
