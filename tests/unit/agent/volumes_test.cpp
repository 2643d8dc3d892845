// What a guest's root is made of, as far as that takes no mount.
#include "guest-images/agent/volumes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "guest-images/agent/kernel_words.h"
#include "guest-images/agent/small_files.h"

namespace snug::test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::IsEmpty;

TEST(KernelWords, AllOfAWord) {
  const std::string line =
      "quiet snug.volume=/a snug.root=/dev/pmem0 snug.volume=/b%20c%2F xsnug.volume=/d snug.volume\n";
  EXPECT_THAT(agent::values_of("snug.volume", line), ElementsAre("/a", "/b c/"));
  EXPECT_EQ(agent::value_of("snug.root", line), "/dev/pmem0");
  EXPECT_EQ(agent::value_of("snug", line), "");
  EXPECT_THAT(agent::values_of("snug.volume", ""), IsEmpty());
  EXPECT_TRUE(agent::has_word("snug.late", "quiet snug.late\n"));
  EXPECT_TRUE(agent::has_word("snug.late", "snug.late snug.agent"));
  EXPECT_FALSE(agent::has_word("snug.late", "snug.later snug.late= xsnug.late"));
  EXPECT_FALSE(agent::has_word("snug.late", ""));
  EXPECT_THAT(agent::values_of("a", "a=%4 a=%zz a=100% a=%41"), ElementsAre("%4", "%zz", "100%", "A"));
}

TEST(Volumes, NamesThatDiffer) {
  EXPECT_EQ(agent::volume_name("/var/lib/data"), "var%2Flib%2Fdata");
  EXPECT_EQ(agent::volume_name("/var%2Flib"), "var%252Flib");
  EXPECT_EQ(agent::volume_name(""), "");
}

TEST(Volumes, ACopyHasAllThatIsThere) {
  std::string pattern = testing::TempDir() + "/snug-volumes-XXXXXX";
  const fs::path folder = ::mkdtemp(pattern.data());
  fs::create_directories(folder / "from/deep/er");
  fs::create_directories(folder / "to");
  // More than one frame.
  const std::string large(300'000, 'x');
  std::ofstream(folder / "from/deep/er/file") << large;
  fs::permissions(folder / "from/deep", fs::perms::owner_all);
  fs::create_symlink("nowhere", folder / "from/link");
  EXPECT_EQ(agent::copy_folder(folder / "from", folder / "to"), "");
  EXPECT_EQ(agent::read_file(folder / "to/deep/er/file"), large);
  EXPECT_EQ(fs::read_symlink(folder / "to/link"), "nowhere");
  EXPECT_EQ(fs::status(folder / "to/deep").permissions(), fs::perms::owner_all);
  EXPECT_EQ(agent::copy_folder(folder / "to/deep/er", folder / "to"), "");
  EXPECT_EQ(agent::read_file(folder / "to/file"), large);
  EXPECT_NE(agent::copy_folder(folder / "nothing", folder / "to"), "");
  fs::remove_all(folder);
}

}  // namespace
}  // namespace snug::test
