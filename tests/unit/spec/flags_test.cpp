#include "vmm/spec/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <array>

#include "tests/unit/spec/problems.h"
#include "vmm/spec/given_flags.h"
#include "vmm/spec/load.h"
#include "vmm/spec/spec.h"

namespace snug {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

FlagValues parsed(std::vector<std::string> arguments) {
  CLI::App app;
  FlagValues values;
  std::string rest;
  app.add_option("spec", rest);
  add_spec_flags(app, values);
  std::reverse(arguments.begin(), arguments.end());
  app.parse(arguments);
  if (!rest.empty()) values.add("rest", rest);
  return values;
}

TEST(Flags, ShortAndLongForms) {
  const auto values =
      parsed({"-c", "2", "--memory=1G", "-k", "k", "--initrd", "a", "--initrd", "b", "-a", "x=1 y",
              "--cmdline=-z", "--log-level", "off", "--console", "file:[a,b]", "vm.yaml"});
  EXPECT_THAT(values.by_key.at("cpus"), ElementsAre("2"));
  EXPECT_THAT(values.by_key.at("memory"), ElementsAre("1G"));
  EXPECT_THAT(values.by_key.at("initrd"), ElementsAre("a", "b"));
  EXPECT_THAT(values.by_key.at("cmdline"), ElementsAre("x=1 y", "-z"));
  EXPECT_THAT(values.by_key.at("log.level"), ElementsAre("off"));
  EXPECT_THAT(values.by_key.at("console"), ElementsAre("file:[a,b]"));
  EXPECT_THAT(values.by_key.at("rest"), ElementsAre("vm.yaml"));
  EXPECT_FALSE(values.by_key.contains("name"));
}

TEST(Flags, OneValueEach) {
  const auto values = parsed({"--initrd", "a", "vm.yaml"});
  EXPECT_THAT(values.by_key.at("initrd"), ElementsAre("a"));
  EXPECT_THAT(values.by_key.at("rest"), ElementsAre("vm.yaml"));
}

TEST(Flags, SomeStandAlone) {
  const auto values = parsed({"-P", "vm.yaml"});
  EXPECT_THAT(values.by_key.at("publish_all"), ElementsAre("true"));
  EXPECT_THAT(values.by_key.at("rest"), ElementsAre("vm.yaml"));
  EXPECT_THAT(parsed({"--publish-all"}).by_key.at("publish_all"), ElementsAre("true"));
  EXPECT_THAT(parsed({"--publish-all=false"}).by_key.at("publish_all"), ElementsAre("false"));
  EXPECT_FALSE(parsed({"vm.yaml"}).by_key.contains("publish_all"));
}

TEST(Flags, RepeatedOnesAreAllKept) {
  EXPECT_THAT(parsed({"-c", "2", "-c", "4"}).by_key.at("cpus"), ElementsAre("2", "4"));
}

TEST(Flags, EmptyValues) { EXPECT_THAT(parsed({"--cmdline", ""}).by_key.at("cmdline"), ElementsAre("")); }

TEST(Flags, ThoseThatAreGivenDoWithoutTheOthers) {
  const auto given = [](std::vector<std::string> words, FlagValues& values) {
    std::vector<char*> pointers;
    for (std::string& word : words) pointers.push_back(word.data());
    CLI::App app;
    std::string rest;
    bool stats = false;
    app.add_option("spec", rest);
    constexpr std::array<std::string_view, 1> kOthers{"--stats"};
    if (!add_given_spec_flags(app, values, pointers, kOthers)) return -1;
    app.add_flag("--stats", stats);
    std::reverse(words.begin(), words.end());
    app.parse(words);
    return static_cast<int>(app.get_options().size());
  };
  FlagValues values;
  // And --help, spec and --stats.
  EXPECT_EQ(given({"vm.yaml", "-c", "2", "--memory=1G", "--log-level", "info", "--stats"}, values), 6);
  EXPECT_THAT(values.by_key.at("cpus"), ElementsAre("2"));
  EXPECT_THAT(values.by_key.at("memory"), ElementsAre("1G"));
  EXPECT_THAT(values.by_key.at("log.level"), ElementsAre("info"));
  for (const char* word : {"--help", "-h", "-c2", "--memroy", "-", "--", "-it", ""})
    EXPECT_EQ(given({"-c", "2", word}, values) < 0, *word != '\0') << word;
}

TEST(Flags, HelpHasExampleAndDefault) {
  CLI::App app;
  FlagValues values;
  add_spec_flags(app, values);
  const auto* memory = app.get_option("--memory");
  EXPECT_EQ(memory->get_description(), "Memory of the guest. Example: 512M. Default: 256M.");
  EXPECT_EQ(memory->get_group(), "Machine");
  for (const auto* option : app.get_options()) {
    if (option->get_name() == "--help") continue;
    EXPECT_THAT(option->get_description(), testing::HasSubstr("Example: ")) << option->get_name();
  }
}

// Every key has a flag and the reverse.
void expect_flags(const KeyList& keys, const std::string& parent, CLI::App& app, size_t& count,
                  const std::string& shorthand = "") {
  for (const auto& key : keys) {
    // A list has one flag, given once for each item, whose parts are the item's keys.
    if (key.nested && !key.nested->is_list) {
      expect_flags(key.nested->keys, std::string(key.name) + "-", app, count, key.nested->shorthand);
      continue;
    }
    std::string flag = "--" + parent + std::string(key.name);
    if (key.nested && flag.ends_with('s')) flag.pop_back();
    // What stands for the whole map may have the map's name.
    if (!shorthand.empty() && key.name == shorthand && long_flag(key) + "-" == "--" + parent)
      flag = long_flag(key);
    std::replace(flag.begin(), flag.end(), '_', '-');
    EXPECT_NE(app.get_option_no_throw(flag), nullptr) << flag;
    EXPECT_EQ(long_flag(key), flag);
    EXPECT_FALSE(key.help.empty() || key.example.empty() || key.placeholder.empty() || key.group.empty())
        << flag;
    ++count;
  }
}

TEST(Flags, OneForEachKey) {
  CLI::App app;
  FlagValues values;
  add_spec_flags(app, values);
  size_t count = 0;
  expect_flags(spec_keys(), "", app, count);
  EXPECT_EQ(app.get_options().size(), count + 1);  // and --help
}

TEST(Flags, TwoCommasAreOneOfTheValue) {
  FlagValues flags;
  flags.by_key["disks"] = {"/missing/a,,b.img,readonly=true", "path=/missing/,,c,,,,,serial=d"};
  flags.by_key["virtio_consoles"] = {"file:/missing/a,,b"};
  flags.by_key["channels"] = {"org.x,socket=/missing/a,,b.sock"};
  const Spec spec = load_spec(std::nullopt, flags).spec;
  ASSERT_EQ(spec.disks.size(), 2U);
  EXPECT_EQ(spec.disks[0].path, "/missing/a,b.img");
  EXPECT_TRUE(spec.disks[0].readonly);
  EXPECT_EQ(spec.disks[1].path, "/missing/,c,,");
  EXPECT_EQ(spec.disks[1].serial, "d");
  ASSERT_EQ(spec.consoles.size(), 1U);
  EXPECT_EQ(spec.consoles[0].to.path, "/missing/a,b");
  ASSERT_EQ(spec.channels.size(), 1U);
  EXPECT_EQ(spec.channels[0].socket, "/missing/a,b.sock");
}

TEST(Flags, AStrayCommaSaysHowItIsWritten) {
  FlagValues flags;
  flags.by_key["disks"] = {"a,b.img"};
  EXPECT_THAT(texts_of(load_spec(std::nullopt, flags).problems),
              Contains(AllOf(HasSubstr("--disk: unknown key 'b.img'"), HasSubstr("is written twice: ',,'"))));
  flags.by_key["disks"] = {"a,readnly=true"};
  EXPECT_THAT(texts_of(load_spec(std::nullopt, flags).problems),
              Contains(AllOf(HasSubstr("did you mean 'readonly'?"), Not(HasSubstr("twice")))));
}

}  // namespace
}  // namespace snug
