#include "vmm/cli/spec_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/cli/parsed_words.h"

namespace snug::cli {
namespace {

using testing::ElementsAre;

FlagValues parsed(const std::vector<std::string>& words) {
  CommandLine line("");
  FlagValues values;
  std::string rest;
  line.program().argument("REST", rest);
  add_flags(line.program(), spec_flags(), values);
  const auto parsed = parse_words(line, words);
  EXPECT_EQ(parsed.text, "");
  if (!rest.empty()) values.add("rest", rest);
  return values;
}

TEST(SpecFlags, ShortAndLongForms) {
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

TEST(SpecFlags, OneValueEach) {
  const auto values = parsed({"--initrd", "a", "vm.yaml"});
  EXPECT_THAT(values.by_key.at("initrd"), ElementsAre("a"));
  EXPECT_THAT(values.by_key.at("rest"), ElementsAre("vm.yaml"));
}

TEST(SpecFlags, SomeStandAlone) {
  const auto values = parsed({"-P", "vm.yaml"});
  EXPECT_THAT(values.by_key.at("publish_all"), ElementsAre("true"));
  EXPECT_THAT(values.by_key.at("rest"), ElementsAre("vm.yaml"));
  EXPECT_THAT(parsed({"--publish-all"}).by_key.at("publish_all"), ElementsAre("true"));
  EXPECT_THAT(parsed({"--publish-all=false"}).by_key.at("publish_all"), ElementsAre("false"));
  EXPECT_FALSE(parsed({"vm.yaml"}).by_key.contains("publish_all"));
}

TEST(SpecFlags, RepeatedOnesAreAllKept) {
  EXPECT_THAT(parsed({"-c", "2", "-c", "4"}).by_key.at("cpus"), ElementsAre("2", "4"));
}

TEST(SpecFlags, EmptyValues) { EXPECT_THAT(parsed({"--cmdline", ""}).by_key.at("cmdline"), ElementsAre("")); }

TEST(SpecFlags, InTheGroupsOfTheirKeys) {
  CommandLine line("");
  FlagValues values;
  add_flags(line.program(), spec_flags(), values);
  const auto options = line.program().options();
  EXPECT_EQ(options.size(), spec_flags().size() + 1);  // and --help
  for (const OptionFacts& option : options) {
    if (option.names.back() != "--memory") continue;
    EXPECT_EQ(option.group, "Machine");
    EXPECT_EQ(option.placeholder, "SIZE");
    EXPECT_EQ(option.help, "Memory of the guest. Example: 512M. Default: 256M.");
  }
}

}  // namespace
}  // namespace snug::cli
