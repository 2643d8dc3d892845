#include "vmm/spec/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "tests/unit/spec/problems.h"
#include "vmm/spec/given_flags.h"
#include "vmm/spec/load.h"
#include "vmm/spec/spec.h"

namespace snug {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using testing::UnorderedElementsAre;

const KeyFlag* find_flag(const std::vector<KeyFlag>& flags, const std::string& name) {
  const auto found =
      std::ranges::find_if(flags, [&](const KeyFlag& flag) { return long_flag(*flag.key) == name; });
  return found == flags.end() ? nullptr : &*found;
}

TEST(Flags, ThoseThatAreGivenDoWithoutTheOthers) {
  const auto given = [](std::vector<std::string> words) {
    std::vector<char*> pointers;
    for (std::string& word : words) pointers.push_back(word.data());
    constexpr std::array<std::string_view, 1> kOthers{"--stats"};
    return given_spec_flags(pointers, kOthers);
  };
  const auto flags = given({"vm.yaml", "-c", "2", "--memory=1G", "--log-level", "info", "--stats"});
  ASSERT_TRUE(flags);
  std::vector<std::string> paths;
  for (const KeyFlag& flag : *flags) paths.push_back(flag.path);
  EXPECT_THAT(paths, UnorderedElementsAre("cpus", "memory", "log.level"));
  for (const char* word : {"--help", "-h", "-c2", "--memroy", "-", "--", "-it", ""})
    EXPECT_EQ(given({"-c", "2", word}).has_value(), *word == '\0') << word;
}

TEST(Flags, HelpHasExampleAndDefault) {
  const auto flags = spec_flags();
  const KeyFlag* memory = find_flag(flags, "--memory");
  ASSERT_NE(memory, nullptr);
  EXPECT_EQ(memory->help, "Memory of the guest. Example: 512M. Default: 256M.");
  for (const KeyFlag& flag : flags) EXPECT_THAT(flag.help, HasSubstr("Example: ")) << flag.path;
}

TEST(Flags, SomeStandAlone) {
  const auto flags = spec_flags();
  EXPECT_TRUE(find_flag(flags, "--publish-all")->stands_alone());
  EXPECT_FALSE(find_flag(flags, "--memory")->stands_alone());
}

// Every key has a flag and the reverse.
void expect_flags(const KeyList& keys, const std::string& parent, const std::vector<KeyFlag>& flags,
                  size_t& count, const std::string& shorthand = "") {
  for (const auto& key : keys) {
    // A list has one flag, given once for each item, whose parts are the item's keys.
    if (key.nested && !key.nested->is_list) {
      expect_flags(key.nested->keys, std::string(key.name) + "-", flags, count, key.nested->shorthand);
      continue;
    }
    std::string flag = "--" + parent + std::string(key.name);
    if (key.nested && flag.ends_with('s')) flag.pop_back();
    // What stands for the whole map may have the map's name.
    if (!shorthand.empty() && key.name == shorthand && long_flag(key) + "-" == "--" + parent)
      flag = long_flag(key);
    std::replace(flag.begin(), flag.end(), '_', '-');
    EXPECT_NE(find_flag(flags, flag), nullptr) << flag;
    EXPECT_EQ(long_flag(key), flag);
    EXPECT_FALSE(key.help.empty() || key.example.empty() || key.placeholder.empty() || key.group.empty())
        << flag;
    ++count;
  }
}

TEST(Flags, OneForEachKey) {
  const auto flags = spec_flags();
  size_t count = 0;
  expect_flags(spec_keys(), "", flags, count);
  EXPECT_EQ(flags.size(), count);
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
