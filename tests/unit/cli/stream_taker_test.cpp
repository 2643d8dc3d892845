#include "vmm/cli/stream_taker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

namespace snug::cli {
namespace {

using testing::HasSubstr;

Result<std::string> taken_by(const std::string& script, size_t bytes) {
  ::signal(SIGPIPE, SIG_IGN);
  auto taker = StreamTaker::start({"/bin/sh", "-c", script});
  EXPECT_TRUE(taker);
  const std::string block(size_t{1} << 16, 'x');
  for (size_t sent = 0; sent < bytes; sent += block.size())
    if (::write(taker->input(), block.data(), block.size()) < 0) break;
  return taker->finish();
}

TEST(StreamTaker, SaysWhatTheProgramHasPrintedFirst) {
  EXPECT_EQ(*taken_by("cat >/dev/null; echo one; echo two", 100), "one");
  EXPECT_EQ(*taken_by("cat >/dev/null", 100), "");
}

TEST(StreamTaker, OneThatTalksMoreThanAPipeHoldsStillReads) {
  const auto said = taken_by("yes more of it | head -c 1000000; cat >/dev/null", size_t{8} << 20);
  EXPECT_EQ(*said, "more of it");
}

TEST(StreamTaker, TellsHowItHasEnded) {
  EXPECT_THAT(taken_by("exit 7", 100).error().message, HasSubstr("status 7"));
  EXPECT_THAT(taken_by("kill -9 $$", size_t{8} << 20).error().message, HasSubstr("signal 9"));
}

}  // namespace
}  // namespace snug::cli
