// Keys of the commands that a machine is started for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/spec/problems.h"
#include "vmm/spec/describe.h"
#include "vmm/spec/load.h"
#include "vmm/spec/text.h"

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

TEST(CommandKeys, VariablesAsAMap) {
  const auto outcome = parse_spec_text("env:\n  A: b\n  B: 1\n  C: ''\n  D: 'x=y'\n  E: true\n", "a", "");
  EXPECT_THAT(texts_of(outcome.problems), IsEmpty());
  EXPECT_THAT(outcome.spec.env, ElementsAre("A=b", "B=1", "C=", "D=x=y", "E=true"));
  EXPECT_THAT(texts_of(parse_spec_text("env:\n  A: b\n  A: c\n  B:\n  C=D: e\n  F: [g]\n", "a", "").problems),
              ElementsAre(HasSubstr("a:3:3: env: duplicate name 'A' (first on line 2)"),
                          HasSubstr("a:4:3: env: 'B' needs a value; '' is the empty one"),
                          HasSubstr("a:5:3: env: a name is text without '='"),
                          HasSubstr("a:6:6: env: 'F': expected text, got a list")));
  EXPECT_THAT(texts_of(parse_spec_text("command: {a: b}", "a", "").problems),
              ElementsAre(HasSubstr("got a map")));
}

// What is the guest's is not looked at, however it is given, and survives being written down.
TEST(CommandKeys, AnyBytes) {
  std::string value = "TABLE=";
  for (int byte = 1; byte < 256; ++byte) value += static_cast<char>(byte);
  const std::vector<std::string> variables{value,           "N=a\nb\tc\n",   "L=caf\xe9",
                                           "U=caf\xc3\xa9", "X=\x1b[0m\x7f", "E="};
  FlagValues flags;
  flags.by_key["env"] = variables;
  flags.by_key["command"] = {"printf 'a\tb'", "echo \xff"};
  flags.by_key["workdir"] = {"/tmp/\xe9\n"};
  const auto outcome = load_spec(std::nullopt, flags);
  EXPECT_THAT(texts_of(outcome.problems), IsEmpty());
  EXPECT_EQ(outcome.spec.env, variables);
  const std::string written = effective_spec_yaml(outcome.spec);
  EXPECT_TRUE(is_utf8(written));
  const auto read = parse_spec_text(written, "a", "");
  EXPECT_THAT(texts_of(read.problems), IsEmpty());
  EXPECT_EQ(read.spec, outcome.spec);
}

TEST(CommandKeys, BytesAreWrittenAsBase64) {
  EXPECT_THAT(parse_spec_text("env: [!!binary \"Q0FGRT1jYWbp\"]", "a", "").spec.env,
              ElementsAre("CAFE=caf\xe9"));
  EXPECT_THAT(texts_of(parse_spec_text("env: !!binary 'Q0FGRT1jYWbp='", "a", "").problems),
              ElementsAre(HasSubstr("a:1:6: the text behind !!binary is no base64")));
  EXPECT_THAT(texts_of(parse_spec_text("env: !!binary 'QT0A'", "a", "").problems),
              ElementsAre(HasSubstr("zero byte")));
}

TEST(CommandKeys, LongVariables) {
  FlagValues flags;
  flags.by_key["env"] = {"A=" + std::string(131'069, 'x')};
  EXPECT_THAT(texts_of(load_spec(std::nullopt, flags).problems), IsEmpty());
  flags.by_key["env"] = {"A=" + std::string(131'070, 'x')};
  EXPECT_THAT(texts_of(load_spec(std::nullopt, flags).problems), ElementsAre(HasSubstr("131071 bytes")));
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
