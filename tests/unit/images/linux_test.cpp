// The images as others see them: Linux, which mounts them, and fsck.erofs, which unpacks them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "tests/unit/images/image_fixture.h"
#include "tests/unit/images/layer_cases.h"
#include "tests/unit/images/outside_tools.h"

namespace snug::test {
namespace {

// In a file of a file system: a kernel mounts no file in memory.
Mounted mounted_from_disk(const Built& built) {
  std::string name = testing::TempDir() + "/snug-image-XXXXXX";
  const UniqueFd file(::mkstemp(name.data()));
  ::unlink(name.c_str());
  const std::string bytes = built.bytes();
  EXPECT_EQ(::write(file.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  return mounted(file.get());
}

TEST(Linux, SeesEveryImageOfTheTable) {
  for (const auto& cases :
       {tar_cases(), raw_tar_cases(), whiteout_cases(), merge_cases(), link_cases(), hostile_cases()}) {
    for (const LayerCase& row : cases) {
      if (!row.fault.empty()) continue;
      std::vector<std::string> layers = row.raw ? row.raw() : std::vector<std::string>();
      for (const Lines& lines : row.layers) layers.push_back(make_layer(lines));
      const Built built = build(layers);
      if (built.result->bytes > 64 * kMiB) continue;
      const Mounted seen = mounted_from_disk(built);
      if (!seen.done) GTEST_SKIP() << seen.why_not;
      EXPECT_THAT(seen.lines, testing::ElementsAreArray(row.expected)) << row.name;
    }
  }
}

// Folders of several blocks, attributes and inodes across blocks, whatever stands beside what.
Lines a_large_tree(unsigned seed) {
  std::minstd_rand random(seed);
  Lines lines;
  for (int folder = 0; folder < 25; ++folder) {
    lines.push_back(fmt::format("d d{} mode={:o}", folder, 0700 + random() % 0100));
    const auto files = static_cast<unsigned>(random() % 3 == 0 ? 300 : random() % 30);
    for (unsigned i = 0; i < files; ++i) {
      std::string line = fmt::format("f d{}/{}{}", folder, std::string(random() % 200, 'n'), i);
      if (random() % 2 == 0) line += " " + std::string(1 + random() % 150, 'x');
      const auto xattrs = static_cast<unsigned>(random() % 5 == 0 ? 1 + random() % 4 : 0);
      for (unsigned x = 0; x < xattrs; ++x)
        line +=
            fmt::format(" x:user.{}={}", x, std::string(random() % (random() % 4 == 0 ? 9000 : 100), 'v'));
      lines.push_back(line);
    }
    for (unsigned i = 0; i < random() % 20; ++i)
      lines.push_back(fmt::format("l d{}/l{} {}", folder, i,
                                  std::string(1 + random() % (random() % 3 == 0 ? 4095 : 90), 't')));
  }
  return lines;
}

TEST(Linux, SeesLargeTrees) {
  for (unsigned seed = 1; seed <= 2; ++seed) {
    const Built built = build({make_layer(a_large_tree(seed))});
    const Lines expected = lines_of(built);
    EXPECT_GT(expected.size(), 1000U);
    EXPECT_EQ(fsck(built.image.get()), "");
    const Mounted seen = mounted_from_disk(built);
    if (!seen.done) GTEST_SKIP() << seen.why_not;
    EXPECT_THAT(seen.lines, testing::ElementsAreArray(expected));
  }
}

TEST(Fsck, UnpacksWhatIsInIt) {
  if (!has_fsck()) GTEST_SKIP() << "fsck.erofs is not installed (package erofs-utils)";
  const Lines lines{"d / mode=711 mtime=9",
                    "d bin mtime=1000",
                    "f bin/sh " + std::string(150, 'x') + " mode=700 mtime=2000.000000005",
                    "d empty mode=700 mtime=3000",
                    "f empty.txt mtime=4000",
                    "l link bin/sh mtime=5000",
                    "f name%20with%20spaces%c3%bc text mtime=6000"};
  const Built built = build({make_layer(lines)});
  std::string folder = testing::TempDir() + "/snug-fsck-XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const std::string out = folder + "/out";
  const std::string said = fsck(built.image.get(), "--extract=" + out);
  EXPECT_EQ(said, "");
  Lines seen = lines_of_folder(out);
  if (::geteuid() != 0) {
    // Who unpacks is who owns, and its umask holds: names and contents alone.
    const auto shorten = [](Lines all) {
      for (std::string& line : all) line.resize(std::min(line.find('='), line.size()));
      for (std::string& line : all) line.resize(std::min(line.rfind(' '), line.size()));
      return all;
    };
    EXPECT_EQ(shorten(seen).size(), shorten(lines).size());
  } else {
    EXPECT_THAT(seen, testing::ElementsAreArray(lines));
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace snug::test
