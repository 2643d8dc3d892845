// What a machine was started for, beside its snapshot.
#include "vmm/run/saved_commands.h"

#include <gtest/gtest.h>

namespace snug {
namespace {

CommandPlan plan() {
  CommandPlan plan;
  plan.commands = {
      {{"sh", "-c", "first"}, "first"}, {{"second", "\xff\x80\n\xc3\xa9"}, "second"}, {{"third"}, "3"}};
  plan.variables = {"NAME=v\x01\xfe"};
  plan.folder = "/srv";
  plan.user = "web:33";
  plan.stop_signal = 3;
  plan.tty = true;
  plan.health.emplace();
  plan.health->command.arguments = {"look"};
  plan.health->interval = std::chrono::milliseconds(1500);
  plan.health->retries = 9;
  return plan;
}

TEST(SavedCommands, ComeBackAsTheyWere) {
  const auto back = parse_saved_commands(saved_commands(plan(), {.over = 1, .running = true, .status = 5}));
  ASSERT_TRUE(back) << back.error().text();
  ASSERT_EQ(back->commands.size(), 2U);
  EXPECT_EQ(back->commands[0].words, plan().commands[1].words) << "any bytes";
  EXPECT_EQ(back->commands[1].title, "3");
  EXPECT_EQ(back->variables, plan().variables);
  EXPECT_EQ(back->folder, "/srv");
  EXPECT_EQ(back->user, "web:33");
  EXPECT_EQ(back->stop_signal, 3);
  EXPECT_TRUE(back->tty);
  EXPECT_TRUE(back->goes_on);
  EXPECT_EQ(back->status_before, 5);
  ASSERT_TRUE(back->health);
  EXPECT_EQ(back->health->command.arguments, std::vector<std::string>{"look"});
  EXPECT_EQ(back->health->interval, std::chrono::milliseconds(1500));
  EXPECT_EQ(back->health->retries, 9U);
}

TEST(SavedCommands, OfOneThatHasNotBegun) {
  const auto back = parse_saved_commands(saved_commands(plan(), {}));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->commands.size(), 3U);
  EXPECT_FALSE(back->goes_on);
}

TEST(SavedCommands, NoneWhereAllAreOver) { EXPECT_EQ(saved_commands(plan(), {.over = 3}), ""); }

TEST(SavedCommands, NoneButACheck) {
  const auto back = parse_saved_commands(saved_health(*plan().health));
  ASSERT_TRUE(back) << back.error().text();
  EXPECT_TRUE(back->commands.empty());
  EXPECT_FALSE(back->goes_on);
  ASSERT_TRUE(back->health);
  EXPECT_EQ(back->health->command.arguments, std::vector<std::string>{"look"});
}

TEST(SavedCommands, MayBeAnything) {
  const std::string good = saved_commands(plan(), {.over = 1, .running = true});
  for (size_t length = 0; length < good.size(); ++length)
    EXPECT_FALSE(parse_saved_commands(good.substr(0, length)));
  for (const char* bad :
       {"5", "null", "[]", "{}", "\"x\"", R"({"commands":5})", R"({"commands":[{"words":"x","title":"t"}]})"})
    EXPECT_FALSE(parse_saved_commands(bad)) << bad;
  // One byte that is another: read or refused, and no more.
  for (size_t at = 0; at < good.size(); ++at) {
    std::string other = good;
    other[at] = static_cast<char>(other[at] ^ 0x11);
    (void)parse_saved_commands(other);
  }
  CommandPlan wordless = plan();
  wordless.commands[2].words.clear();
  EXPECT_FALSE(parse_saved_commands(saved_commands(wordless, {})));
}

}  // namespace
}  // namespace snug
