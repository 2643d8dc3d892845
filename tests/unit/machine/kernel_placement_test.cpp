#include "vmm/machine/kernel_placement.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>

#include "vmm/base/unique_fd.h"

namespace snug {
namespace {

TEST(KernelPlacement, NokaslrIsAWordOfItsOwn) {
  EXPECT_TRUE(forbids_kaslr("nokaslr"));
  EXPECT_TRUE(forbids_kaslr("quiet  nokaslr"));
  EXPECT_TRUE(forbids_kaslr("nokaslr quiet"));
  EXPECT_FALSE(forbids_kaslr(""));
  EXPECT_FALSE(forbids_kaslr("nokaslrs xnokaslr nokaslr=1"));
}

TEST(KernelPlacement, LeavesRoomForInitrds) {
  const UniqueFd first(::memfd_create("a", MFD_CLOEXEC));
  const UniqueFd second(::memfd_create("b", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(first.get(), 5000), 0);
  ASSERT_EQ(::ftruncate(second.get(), 100), 0);
  const auto placement = random_placement(std::array{first.get(), second.get()});
  EXPECT_TRUE(placement.randomise);
  EXPECT_GE(placement.reserve_above, 5100u);
  EXPECT_LT(placement.reserve_above, 5100u + 16384);
  EXPECT_EQ(random_placement({}).reserve_above, 0u);
}

TEST(KernelPlacement, OfAPipeNobodyKnowsTheSize) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const UniqueFd from(ends[0]);
  const UniqueFd to(ends[1]);
  EXPECT_EQ(random_placement(std::array{from.get()}).reserve_above, UINT64_MAX);
}

TEST(KernelPlacement, IsAnotherEachTime) {
  const auto first = random_placement({});
  const auto second = random_placement({});
  EXPECT_NE(first.physical_random, second.physical_random);
  EXPECT_NE(first.virtual_random, second.virtual_random);
}

}  // namespace
}  // namespace snug
