#include "vmm/host/escape.h"

#include <gtest/gtest.h>

#include <string>

namespace snug {
namespace {

struct Fed {
  EscapeCommand command;
  std::string guest;
};

Fed feed(EscapeFilter& filter, std::string_view input) {
  std::vector<std::byte> out;
  const auto command = filter.feed(std::as_bytes(std::span(input)), out);
  return {command, std::string(reinterpret_cast<const char*>(out.data()), out.size())};
}

TEST(Escape, PlainInputPassesUntouched) {
  EscapeFilter filter;
  std::string all;
  for (int c = 0; c < 256; ++c)
    if (c != 1) all += static_cast<char>(c);
  EXPECT_EQ(feed(filter, all).guest, all);
}

TEST(Escape, QuitsAlsoWhenSplitOverTwoReads) {
  EscapeFilter filter;
  EXPECT_EQ(feed(filter, "a\x01").command, EscapeCommand::kNone);
  const auto second = feed(filter, "xrest");
  EXPECT_EQ(second.command, EscapeCommand::kQuit);
  EXPECT_EQ(second.guest, "");
}

TEST(Escape, TwiceSendsOne) {
  EscapeFilter filter;
  EXPECT_EQ(feed(filter,
                 "a\x01\x01"
                 "b")
                .guest,
            "a\x01"
            "b");
}

TEST(Escape, HelpGoesOn) {
  EscapeFilter filter;
  const auto fed = feed(filter, "a\x01hb");
  EXPECT_EQ(fed.command, EscapeCommand::kHelp);
  EXPECT_EQ(fed.guest, "ab");
}

TEST(Escape, AnythingElseIsTheGuests) {
  EscapeFilter filter;
  EXPECT_EQ(feed(filter, "\x01q").guest, "\x01q");
}

}  // namespace
}  // namespace snug
