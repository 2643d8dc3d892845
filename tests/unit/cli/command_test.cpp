#include "vmm/cli/command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/cli/parsed_words.h"

namespace snug::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Kind = CommandLine::Parsed::Kind;

// Of every kind that there is.
struct Given {
  std::string name;
  std::vector<std::string> others, variables;
  std::optional<double> seconds;
  int count = 1;
  bool all = false;
};

void describe(Command command, Given& given) {
  command.argument("NAME", given.name, "The machine").required();
  command.argument("OTHER", given.others);
  command.option("-e,--env", given.variables, "Variables").placeholder("NAME=VALUE").one_each();
  command.option("-t,--time", given.seconds, "Seconds").within(0.0, 5.5);
  command.option("-n,--count", given.count, "How many").within(1, 9).group("Numbers");
  command.flag("-a,--all", given.all, "All of them");
}

CommandLine::Parsed parse(const std::vector<std::string>& words, Given& given) {
  CommandLine line("About it");
  describe(line.program(), given);
  return parse_words(line, words);
}

TEST(Command, ValuesOfEveryKind) {
  Given given;
  const auto parsed =
      parse({"-e", "a=b", "-e", "c=d", "one", "two", "three", "-t", "1.5", "--count=3", "-a"}, given);
  EXPECT_EQ(parsed.kind, Kind::kUnderstood);
  EXPECT_EQ(given.name, "one");
  EXPECT_THAT(given.others, ElementsAre("two", "three"));
  EXPECT_THAT(given.variables, ElementsAre("a=b", "c=d"));
  EXPECT_EQ(given.seconds, 1.5);
  EXPECT_EQ(given.count, 3);
  EXPECT_TRUE(given.all);
}

TEST(Command, WhatIsNotGivenIsLeft) {
  Given given{.count = 7};
  EXPECT_EQ(parse({"one"}, given).kind, Kind::kUnderstood);
  EXPECT_THAT(given.others, IsEmpty());
  EXPECT_FALSE(given.seconds);
  EXPECT_EQ(given.count, 7);
  EXPECT_FALSE(given.all);
}

TEST(Command, WhatIsWrongIsSaid) {
  using Words = std::vector<std::string>;
  for (const Words& words : {Words{}, Words{"one", "-t", "6"}, Words{"one", "-n", "0"},
                             Words{"one", "-n", "x"}, Words{"one", "-n"}, Words{"one", "--nosuch"}}) {
    Given given;
    const auto parsed = parse(words, given);
    EXPECT_EQ(parsed.kind, Kind::kWrong);
    EXPECT_NE(parsed.text, "");
  }
}

TEST(Command, AFlagIsOnOrOff) {
  for (const auto& [word, expected] :
       {std::pair("--all", "on"), std::pair("--all=true", "on"), std::pair("--all=false", "off")}) {
    CommandLine line("");
    std::string said;
    line.program().flag_to(
        "-a,--all", [&said](bool is_set) { said = is_set ? "on" : "off"; }, "");
    EXPECT_EQ(parse_words(line, {word}).kind, Kind::kUnderstood);
    EXPECT_EQ(said, expected) << word;
  }
  for (const char* word : {"--all=maybe", "--all=99999999999999999999999"}) {
    CommandLine line("");
    line.program().subcommand("run", "").flag_to(
        "-a,--all", [](bool) {}, "");
    const auto parsed = parse_words(line, {"run", word});
    EXPECT_EQ(parsed.kind, Kind::kWrong);
    EXPECT_THAT(parsed.text, HasSubstr(word));
  }
}

TEST(Command, HelpIsText) {
  Given given;
  const auto parsed = parse({"--help"}, given);
  EXPECT_EQ(parsed.kind, Kind::kHelp);
  EXPECT_THAT(parsed.text, HasSubstr("About it"));
  EXPECT_THAT(parsed.text, HasSubstr("-e,--env NAME=VALUE"));
  EXPECT_THAT(parsed.text, HasSubstr("Numbers:"));
}

TEST(Command, OneOfSomeWords) {
  for (const auto& [word, kind] : {std::pair("bash", Kind::kUnderstood), std::pair("tcsh", Kind::kWrong)}) {
    CommandLine line("");
    std::string shell;
    line.program().argument("SHELL", shell).one_of({"bash", "zsh"});
    EXPECT_EQ(parse_words(line, {word}).kind, kind) << word;
  }
}

TEST(Command, CommandsOfCommands) {
  CommandLine line("");
  const Command image = line.program().subcommand("image", "Images");
  image.needs_subcommand();
  bool is_listed = false;
  image.subcommand("list", "Lists them").callback([&is_listed] { is_listed = true; });
  image.subcommand("secret", "Does what it does").hide();
  EXPECT_EQ(parse_words(line, {"image", "list"}).kind, Kind::kUnderstood);
  EXPECT_TRUE(is_listed);
  ASSERT_TRUE(line.program().parsed_subcommand());
  EXPECT_EQ(line.program().parsed_subcommand()->name(), "image");
  EXPECT_EQ(image.parsed_subcommand()->name(), "list");
  const auto both = image.subcommands();
  ASSERT_EQ(both.size(), 2U);
  EXPECT_EQ(both[0].about(), "Lists them");
  EXPECT_FALSE(both[0].is_hidden());
  EXPECT_TRUE(both[1].is_hidden());
}

TEST(Command, TellsWhatItIsMadeOf) {
  CommandLine line("");
  Given given;
  describe(line.program(), given);
  line.program().footer("The end");
  EXPECT_EQ(line.program().footer(), "The end");
  const auto options = line.program().options();
  ASSERT_EQ(options.size(), 7U);
  EXPECT_THAT(options[0].names, ElementsAre("-h", "--help"));
  EXPECT_EQ(options[0].placeholder, "");
  EXPECT_THAT(options[1].names, ElementsAre("NAME"));
  EXPECT_TRUE(options[1].is_argument && options[1].required && !options[1].repeats);
  EXPECT_TRUE(options[2].is_argument && !options[2].required && options[2].repeats);
  EXPECT_THAT(options[3].names, ElementsAre("-e", "--env"));
  EXPECT_EQ(options[3].placeholder, "NAME=VALUE");
  EXPECT_EQ(options[4].placeholder, "FLOAT");
  EXPECT_EQ(options[5].group, "Numbers");
  EXPECT_EQ(options[6].help, "All of them");
}

}  // namespace
}  // namespace snug::cli
