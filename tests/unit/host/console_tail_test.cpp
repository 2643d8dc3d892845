#include "vmm/host/console_tail.h"

#include <gtest/gtest.h>

namespace snug {
namespace {

void feed(ConsoleTail& tail, std::string_view text) { tail.feed(std::as_bytes(std::span(text))); }

TEST(ConsoleTail, LastLineWithSomethingInIt) {
  ConsoleTail tail;
  EXPECT_EQ(tail.last_line(), "");
  feed(tail, "one\r\ntwo\r\n\r\n   \r\n");
  EXPECT_EQ(tail.last_line(), "two");
  feed(tail, "login: ");
  EXPECT_EQ(tail.last_line(), "login:");
}

TEST(ConsoleTail, ControlSequencesAreRemoved) {
  ConsoleTail tail;
  feed(tail, "\x1b[1;31mred\x1b[0m\a line\n");
  EXPECT_EQ(tail.last_line(), "red line");
  feed(tail, "\x1b[");
  EXPECT_EQ(tail.last_line(), "red line");
}

TEST(ConsoleTail, IsBounded) {
  ConsoleTail tail;
  for (int i = 0; i < 1000; ++i) feed(tail, std::string(5000, 'x') + "\n");
  feed(tail, std::string(1 << 20, 'y'));
  EXPECT_LT(tail.last_lines(1000).size(), 64u * 1024);
  EXPECT_LT(tail.last_line().size(), 1000u);
}

TEST(ConsoleTail, FindsAPanicWithAndWithoutATimeStamp) {
  ConsoleTail tail;
  feed(tail, "[    1.234567] Kernel panic - not syncing: sysrq triggered crash\r\n[    1.3] more\r\n");
  EXPECT_EQ(tail.panic_line(), "Kernel panic - not syncing: sysrq triggered crash");
  ConsoleTail plain;
  feed(plain, "Kernel panic - not syncing: no init found\n");
  EXPECT_TRUE(plain.panic_line());
}

TEST(ConsoleTail, TalkOfAPanicIsNone) {
  ConsoleTail tail;
  feed(tail, "grep: the log says Kernel panic - not syncing: yesterday\n");
  EXPECT_FALSE(tail.panic_line());
}

}  // namespace
}  // namespace snug
