// Keys of the commands that a machine is started for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/spec/problems.h"
#include "vmm/spec/load.h"

namespace snug {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(CommandKeys, OneLineOrAList) {
  EXPECT_THAT(parse_spec_text("command: make check", "a", "").spec.command, ElementsAre("make check"));
  const auto outcome = parse_spec_text(
      "command: [a, 'b > c']\nenv: [A=b, 'C=d e', E=]\nworkdir: /tmp\nuser: nobody:users", "a", "");
  EXPECT_THAT(texts_of(outcome.problems), IsEmpty());
  EXPECT_THAT(outcome.spec.command, ElementsAre("a", "b > c"));
  EXPECT_THAT(outcome.spec.env, ElementsAre("A=b", "C=d e", "E="));
  EXPECT_EQ(outcome.spec.workdir, "/tmp");
  EXPECT_EQ(outcome.spec.user, "nobody:users");
}

TEST(CommandKeys, WhatCannotBe) {
  for (const char* text : {"command: ' '", "command: \"a\\nb\"", "env: A", "env: =b", "workdir: tmp",
                           "user: 'a b'", "user: 'a:'", "user: '-1'"})
    EXPECT_EQ(parse_spec_text(text, "a", "").problems.size(), 1U) << text;
  EXPECT_THAT(texts_of(parse_spec_text("command: |\n  a\n  b\n", "a", "").problems),
              ElementsAre(HasSubstr("make a list of them")));
}

}  // namespace
}  // namespace snug
