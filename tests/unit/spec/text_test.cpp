#include "vmm/spec/text.h"

#include <gtest/gtest.h>

namespace snug {
namespace {

TEST(Closest, TypingMistakes) {
  const std::vector<std::string> keys{"cpus", "memory", "kernel", "on_reboot", "timeout", "boot_timeout"};
  EXPECT_EQ(closest("memroy", keys), "memory");
  EXPECT_EQ(closest("kernal", keys), "kernel");
  EXPECT_EQ(closest("CPUS", keys), "cpus");
  EXPECT_EQ(closest("on-reboot", keys), "on_reboot");
  EXPECT_EQ(closest("onReboot", keys), "on_reboot");
  EXPECT_EQ(closest("time_out", keys), "timeout");
  EXPECT_EQ(closest("boot", keys), "boot_timeout");
  EXPECT_EQ(closest("cpu", keys), "cpus");
  EXPECT_EQ(closest("xyz", keys), std::nullopt);
  EXPECT_EQ(closest("", keys), std::nullopt);
  EXPECT_EQ(closest(std::string(10'000, 'k'), keys), std::nullopt);
}

TEST(Utf8, OnlyWellFormed) {
  EXPECT_EQ(utf8_length("a", 0), 1U);
  EXPECT_EQ(utf8_length("ü", 0), 2U);
  EXPECT_EQ(utf8_length("€", 0), 3U);
  EXPECT_EQ(utf8_length("😀", 0), 4U);
  EXPECT_EQ(utf8_length("", 0), 0U);
  for (const char* bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xc3", "\xe0\x80\x80", "\xed\xa0\x80", "\xe2\x82",
                          "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xc3("}) {
    EXPECT_EQ(utf8_length(bad, 0), 0U);
  }
}

TEST(Quoted, SafeToPrint) {
  EXPECT_EQ(in_quotes("a b"), "'a b'");
  EXPECT_EQ(in_quotes("a\n\t\x1b\xff"), "'a\\n\\t\\x1b\\xff'");
  EXPECT_EQ(in_quotes(std::string(60, 'a')), "'" + std::string(60, 'a') + "'");
  EXPECT_EQ(in_quotes(std::string(61, 'a')), "'" + std::string(60, 'a') + "...'");
}

TEST(JsonString, Escapes) { EXPECT_EQ(json_string("a\"\\\n"), "\"a\\\"\\\\\\u000a\""); }

TEST(OrList, Forms) {
  const std::vector<std::string> words{"a", "b", "c"};
  EXPECT_EQ(or_list(std::span(words).first(1)), "a");
  EXPECT_EQ(or_list(std::span(words).first(2)), "a or b");
  EXPECT_EQ(or_list(words), "a, b or c");
}

}  // namespace
}  // namespace snug
