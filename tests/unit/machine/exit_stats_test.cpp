#include "vmm/machine/exit_stats.h"

#include <gtest/gtest.h>

namespace snug {
namespace {

TEST(ExitStats, CountsByAddressAndStaysBounded) {
  std::map<uint64_t, uint64_t> counts;
  for (uint64_t i = 0; i < 1'000'000; ++i) ExitStats::count(counts, i);
  EXPECT_EQ(counts.size(), ExitStats::kMaxAddresses + 1);
  EXPECT_EQ(counts[0], 1u);
  EXPECT_EQ(counts[ExitStats::kElsewhere], 1'000'000 - ExitStats::kMaxAddresses);
  ExitStats::count(counts, 5);
  EXPECT_EQ(counts[5], 2u) << "what is known goes on being counted";
}

}  // namespace
}  // namespace snug
