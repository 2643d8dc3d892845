#include "vmm/spec/units.h"

#include <gtest/gtest.h>

#include "vmm/base/checked.h"

namespace snug {
namespace {

using std::chrono::milliseconds;

TEST(Size, Parses) {
  EXPECT_EQ(parse_size("4K").value(), 4 * kKiB);
  EXPECT_EQ(parse_size("512M").value(), 512 * kMiB);
  EXPECT_EQ(parse_size("2GiB").value(), 2 * kGiB);
  EXPECT_EQ(parse_size("1t").value(), 1024 * kGiB);
  EXPECT_EQ(parse_size("0M").value(), 0U);
  EXPECT_EQ(parse_size("16777215T").value(), uint64_t{16777215} << 40);
  for (const char* bad : {"", "M", "-1M", "+1M", " 1M", "1 M", "1M ", "1P", "1MiBx", "0x10M", "1e3M",
                          "1_000M", "16777216T", "99999999999999999999M", "1", "1Mi", "1MB"}) {
    EXPECT_FALSE(parse_size(bad)) << bad;
  }
}

TEST(Size, PrintsWhatParsesBack) {
  EXPECT_EQ(format_size(512 * kMiB), "512M");
  EXPECT_EQ(format_size(1536 * kMiB), "1536M");
  EXPECT_EQ(format_size(2048 * kMiB), "2G");
  EXPECT_EQ(format_size(1000), "1000");
  EXPECT_EQ(format_size(0), "0");
  for (uint64_t bytes = kKiB; bytes < 1024 * kGiB; bytes = bytes * 3 + kKiB) {
    EXPECT_EQ(parse_size(format_size(bytes)).value(), bytes);
  }
}

TEST(Size, Hints) {
  EXPECT_EQ(parse_size("1.25g").error().message,
            "expected a size such as 512M or 2G, got '1.25g' (did you mean 1280M?)");
  EXPECT_EQ(parse_size("1.1G").error().message, "expected a size such as 512M or 2G, got '1.1G'");
  EXPECT_EQ(parse_size("0").error().message, "expected a size such as 512M or 2G, got '0'");
  EXPECT_EQ(parse_size("1.5K").error().message, "expected a size such as 512M or 2G, got '1.5K'");
}

TEST(Duration, Parses) {
  EXPECT_EQ(parse_duration("500ms").value(), milliseconds(500));
  EXPECT_EQ(parse_duration("30s").value(), milliseconds(30'000));
  EXPECT_EQ(parse_duration("5m").value(), milliseconds(300'000));
  EXPECT_EQ(parse_duration("1h").value(), milliseconds(3'600'000));
  EXPECT_EQ(parse_duration("1h2m3s4ms").value(), milliseconds(3'723'004));
  EXPECT_EQ(parse_duration("90m").value(), milliseconds(5'400'000));
  EXPECT_EQ(parse_duration("0").value(), milliseconds(0));
  EXPECT_EQ(parse_duration("0s").value(), milliseconds(0));
  EXPECT_EQ(parse_duration("8760h").value(), milliseconds(31'536'000'000));
  for (const char* bad : {"", "s", "30", "1s1m", "1s2s", "1.5s", "-1s", "1 s", "1d", "1M", "8761h", "1m30",
                          "99999999999999999999h", "18446744073709551615h", "8760h1ms", "none", "1h-1m"}) {
    EXPECT_FALSE(parse_duration(bad)) << bad;
  }
}

TEST(Duration, PrintsWhatParsesBack) {
  EXPECT_EQ(format_duration(milliseconds(90'000)), "1m30s");
  EXPECT_EQ(format_duration(milliseconds(0)), "0");
  for (int64_t ms = 1; ms < 31'000'000'000; ms = ms * 7 + 13) {
    EXPECT_EQ(parse_duration(format_duration(milliseconds(ms))).value(), milliseconds(ms));
  }
}

}  // namespace
}  // namespace snug
