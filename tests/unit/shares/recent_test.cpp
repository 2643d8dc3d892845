// What was found a moment ago holds for a moment more.
#include "vmm/shares/recent.h"

#include <gtest/gtest.h>

namespace snug::test {
namespace {

TEST(Recent, HoldsForAWhile) {
  Recent recent;
  EXPECT_FALSE(recent.holds(0));
  recent.found(recent.begin(), 100);
  EXPECT_TRUE(recent.holds(99));
  EXPECT_FALSE(recent.holds(100));
  recent.found(recent.begin(), 200);
  EXPECT_TRUE(recent.holds(150));
  recent.ends();
  EXPECT_FALSE(recent.holds(150));
  recent.found(recent.begin(), 300);
  EXPECT_TRUE(recent.holds(250));
  recent.reset();
  EXPECT_FALSE(recent.holds(0));
}

TEST(Recent, WhoLooksWhileItEndsHasNothingToSay) {
  Recent recent;
  const uint64_t begun = recent.begin();
  recent.ends();
  recent.found(begun, 100);
  EXPECT_FALSE(recent.holds(50));
  const uint64_t again = recent.begin();
  recent.ends();
  recent.ends();
  recent.found(again, 100);
  EXPECT_FALSE(recent.holds(50));
}

}  // namespace
}  // namespace snug::test
