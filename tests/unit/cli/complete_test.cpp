#include "vmm/cli/complete.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace snug::cli {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

const std::vector<CommandInfo>& commands() {
  static const std::vector<CommandInfo> all{
      {.name = "stop",
       .about = "Stop machines. All that are named.",
       .arguments = {{.name = "NAME", .required = true, .repeats = true}},
       .flags = {{.names = {"-t", "--time"}, .placeholder = "FLOAT", .help = "How long"},
                 {.names = {"--force"}, .help = "At once"}}},
      {.name = "cp", .arguments = {{.name = "FROM", .required = true}, {.name = "TO", .required = true}}},
      {.name = "fork", .arguments = {{.name = "MACHINE", .required = true}}},
      {.name = "restore", .arguments = {{.name = "SNAPSHOT", .required = true}}},
      {.name = "logs", .arguments = {{.name = "NAME", .required = true}}}};
  return all;
}

Completion completion_of(const std::vector<std::string>& words) {
  const KnownNames known{[] {
                           return std::vector<std::string>{"web", "db", "web2"};
                         },
                         [] { return std::vector<std::string>{"saved"}; }};
  return complete(words, commands(), known);
}

std::vector<std::string> words_of(const std::vector<std::string>& words) {
  std::vector<std::string> out;
  for (const auto& candidate : completion_of(words).candidates) out.push_back(candidate.word);
  return out;
}

TEST(Complete, NamesMachinesWhereTheyArePlaced) {
  EXPECT_THAT(words_of({"stop", ""}), ElementsAre("web", "db", "web2"));
  EXPECT_THAT(words_of({"stop", "web", "w"}), ElementsAre("web", "web2"));
  EXPECT_THAT(words_of({"stop", "--time", ""}), IsEmpty());
  EXPECT_THAT(words_of({"stop", "--time", "3", "d"}), ElementsAre("db"));
  EXPECT_THAT(words_of({"stop", "--force", "d"}), ElementsAre("db"));
  EXPECT_THAT(words_of({"logs", "d"}), ElementsAre("db"));
  EXPECT_THAT(words_of({"logs", "db", ""}), IsEmpty());
  EXPECT_THAT(words_of({"fork", "d"}), ElementsAre("db"));
  EXPECT_THAT(words_of({"restore", ""}), ElementsAre("saved"));
  EXPECT_THAT(words_of({"nonsense", ""}), IsEmpty());
  EXPECT_THAT(words_of({}), IsEmpty());
}

TEST(Complete, EndsOfACopyAreMachinesOrFiles) {
  EXPECT_THAT(words_of({"cp", "w"}), ElementsAre("web:", "web2:"));
  EXPECT_EQ(completion_of({"cp", "w"}).files, Completion::Files::kAll);
  EXPECT_EQ(completion_of({"cp", "web:/e"}).files, Completion::Files::kNone);  // nobody asks the guest
  EXPECT_EQ(completion_of({"cp", "a", "b", ""}).files, Completion::Files::kNone);
}

TEST(Complete, SaysWhatAWordIs) {
  EXPECT_EQ(completion_lines(completion_of({"st"})), "stop\tStop machines\n");
  EXPECT_EQ(completion_lines(completion_of({"stop", "-"})),
            "-t\tHow long\n--time\tHow long\n--force\tAt once\n");
  EXPECT_EQ(completion_lines(completion_of({"cp", "x"})), ":files \n");
}

TEST(Complete, ScriptsOfThreeShells) {
  for (const char* shell : {"bash", "zsh", "fish"}) EXPECT_FALSE(completion_script(shell).empty()) << shell;
  EXPECT_TRUE(completion_script("csh").empty());
}

}  // namespace
}  // namespace snug::cli
