// Which parts of a file are locked, against a list of all its bytes.
#include "vmm/shares/lock_ranges.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <array>
#include <random>

namespace snug::test {
namespace {

fuse_file_lock lock_of(uint32_t type, uint64_t start, uint64_t end) {
  fuse_file_lock lock{};
  lock.type = type;
  lock.start = start;
  lock.end = end;
  return lock;
}

TEST(LockRanges, AreWhatEachByteWasLastSetTo) {
  constexpr uint64_t kBytes = 40;
  constexpr std::array<uint32_t, 3> kTypes{F_RDLCK, F_WRLCK, F_UNLCK};
  std::mt19937 chance(7);
  LockRanges ranges;
  std::array<uint32_t, kBytes> model;
  model.fill(F_UNLCK);
  for (int round = 0; round < 20'000; ++round) {
    const uint64_t start = chance() % kBytes, end = start + chance() % (kBytes - start);
    const uint32_t type = kTypes[chance() % kTypes.size()];
    ranges.set(lock_of(type, start, end));
    for (uint64_t at = start; at <= end; ++at) model[at] = type;
    for (uint64_t at = 0; at < kBytes; ++at) {
      ASSERT_EQ(ranges.is_in_the_way_of(lock_of(F_RDLCK, at, at)), model[at] == F_WRLCK)
          << round << ", " << at;
      ASSERT_EQ(ranges.is_in_the_way_of(lock_of(F_WRLCK, at, at)), model[at] != F_UNLCK)
          << round << ", " << at;
    }
  }
}

TEST(LockRanges, ReachToTheEnd) {
  LockRanges ranges;
  ranges.set(lock_of(F_WRLCK, 10, UINT64_MAX));
  ranges.set(lock_of(F_UNLCK, 20, INT64_MAX));
  EXPECT_TRUE(ranges.is_in_the_way_of(lock_of(F_RDLCK, 19, UINT64_MAX)));
  EXPECT_FALSE(ranges.is_in_the_way_of(lock_of(F_WRLCK, 20, UINT64_MAX)));
  EXPECT_FALSE(ranges.is_in_the_way_of(lock_of(F_WRLCK, 0, 9)));
}

TEST(LockRanges, AreBounded) {
  LockRanges ranges;
  for (uint64_t at = 0; at <= LockRanges::kMax; ++at) {
    EXPECT_EQ(ranges.is_in_the_way_of(lock_of(F_RDLCK, 0, 0)), at > 0);
    ranges.set(lock_of(F_WRLCK, 2 * at, 2 * at));
  }
  EXPECT_FALSE(ranges.is_in_the_way_of(lock_of(F_RDLCK, 0, 0))) << "not known any more";
  LockRanges in_one;
  for (uint64_t at = 0; at < 4 * LockRanges::kMax; ++at) in_one.set(lock_of(F_WRLCK, at, at));
  EXPECT_TRUE(in_one.is_in_the_way_of(lock_of(F_RDLCK, 0, 0))) << "one beside the other is one";
}

}  // namespace
}  // namespace snug::test
