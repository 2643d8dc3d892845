// The parts by themselves: checksum, chunks, spool, and trees that no layer makes.
#include <cstring>
#include <filesystem>
#include <random>

#include "tests/unit/images/image_fixture.h"
#include "tests/unit/images/outside_tools.h"
#include "vmm/images/crc32c.h"
#include "vmm/images/erofs_chunks.h"
#include "vmm/images/erofs_writer.h"
#include "vmm/images/spool.h"

namespace snug::test {
namespace {

using images::Extent;
using images::FileTree;
using images::Inode;
using images::kRoot;
using images::Spool;
using testing::ElementsAre;

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

TEST(Crc32c, IsThatOfTheBook) {
  // RFC 3720, B.4, and the check value of the catalogue; both are inverted at the end.
  EXPECT_EQ(~images::crc32c(0xffffffff, bytes_of("123456789")), 0xe3069283U);
  EXPECT_EQ(~images::crc32c(0xffffffff, bytes_of(std::string(32, '\0'))), 0x8a9136aaU);
}

TEST(Chunks, HoldAllThatIsNoHole) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 300; ++round) {
    std::vector<Extent> extents;
    uint64_t at = random() % 2 * 4096;
    for (uint64_t i = random() % 6; i > 0; --i) {
      extents.push_back({at, 0, (1 + random() % 50) * 4096});
      at += extents.back().length + (16 + random() % (1ULL << random() % 20)) * 4096;
    }
    const uint64_t size = at + random() % 5000 + 1;
    const images::ChunkPlan plan = images::plan_chunks(extents, size);
    const uint64_t chunk = uint64_t{4096} << plan.bits;
    EXPECT_EQ(plan.chunks, (size + chunk - 1) / chunk);
    images::ChunkTable table(extents, size, plan);
    uint64_t blocks = 0;
    for (uint64_t i = 0; i < plan.chunks; ++i) {
      const uint64_t start = i * chunk;
      const uint64_t end = std::min(start + chunk, size);
      bool hole = true;
      for (const Extent& extent : extents)
        hole = hole && (extent.file_offset >= end || extent.file_offset + extent.length <= start);
      const uint32_t block = table.next();
      EXPECT_EQ(block, hole ? 0xffffffff : blocks) << "round " << round << ", chunk " << i;
      if (!hole) blocks += (end - start + 4095) / 4096;
    }
    EXPECT_TRUE(table.done());
    EXPECT_EQ(plan.blocks, blocks);
  }
}

TEST(SpoolOf, TheSameBytesIsTheSameHoweverTheyCome) {
  std::mt19937_64 random(2);
  std::string contents(900'000, '\0');
  for (size_t at = 0; at < contents.size(); at += random() % 200'000)
    for (size_t i = at; i < std::min(contents.size(), at + random() % 40'000); ++i)
      contents[i] = static_cast<char>(random());
  images::ContentHash::Value first{};
  std::vector<uint64_t> lengths;
  for (int round = 0; round < 10; ++round) {
    Spool spool(memory_file());
    // Something in front of it.
    spool.begin();
    ASSERT_TRUE(spool.write(0, bytes_of("before")));
    ASSERT_TRUE(spool.finish(6));
    spool.begin();
    for (size_t at = 0; at < contents.size();) {
      const size_t count =
          std::min<size_t>(contents.size() - at, 1 + random() % (round % 2 == 0 ? 3000 : 500'000));
      // Zeros may be left out.
      const std::string_view piece = std::string_view(contents).substr(at, count);
      const bool zero = piece.find_first_not_of('\0') == std::string_view::npos;
      if (round % 3 == 0 && zero) {
        at += count;
        continue;
      }
      ASSERT_TRUE(spool.write(at, bytes_of(piece)));
      at += count;
    }
    const auto stored = spool.finish(contents.size());
    ASSERT_TRUE(stored);
    std::string back(contents.size(), '\0');
    std::vector<uint64_t> now;
    for (const Extent& extent : stored->extents) {
      EXPECT_EQ(extent.file_offset % 4096, 0U);
      EXPECT_EQ(extent.spool_offset % 4096, 0U);
      EXPECT_EQ(::pread(spool.descriptor(), back.data() + extent.file_offset, extent.length,
                        static_cast<off_t>(extent.spool_offset)),
                static_cast<ssize_t>(extent.length));
      now.push_back(extent.file_offset);
      now.push_back(extent.length);
    }
    EXPECT_EQ(back, contents);
    if (round == 0) {
      first = stored->hash;
      lengths = now;
    }
    EXPECT_EQ(stored->hash, first);
    EXPECT_EQ(now, lengths);
  }
}

TEST(SpoolOf, OffsetsThatGoBackIsRefused) {
  Spool spool(memory_file());
  spool.begin();
  ASSERT_TRUE(spool.write(100, bytes_of("abc")));
  EXPECT_FALSE(spool.write(102, bytes_of("x")));
  EXPECT_TRUE(spool.write(103, bytes_of("x")));
}

TEST(SpoolOf, AFolderHasNoName) {
  std::string folder = testing::TempDir() + "/snug-spool-XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  {
    auto spool = Spool::create(folder);
    ASSERT_TRUE(spool) << spool.error().text();
    EXPECT_TRUE(std::filesystem::is_empty(folder));
  }
  std::filesystem::remove(folder);
  EXPECT_THAT(Spool::create(folder).error().message, testing::HasSubstr("making a file in " + folder));
}

Inode inode_of_mode(uint32_t mode) {
  Inode inode;
  inode.mode = mode;
  return inode;
}

Lines written(const FileTree& tree) {
  const UniqueFd spool = memory_file();
  const UniqueFd image = memory_file();
  const auto result = images::ErofsWriter(tree, spool.get(), {}).write(image.get());
  if (!result) return {result.error().text()};
  EXPECT_EQ(fsck(image.get()), "");
  ErofsReader reader(image.get());
  EXPECT_THAT(reader.problems(), ElementsAre());
  return listing(reader);
}

TEST(ErofsWriterOf, AnEmptyTree) { EXPECT_THAT(written(FileTree()), ElementsAre()); }

TEST(ErofsWriterOf, ASocket) {
  FileTree tree;
  tree.add(kRoot, "s", inode_of_mode(S_IFSOCK | 0600), 0);
  EXPECT_THAT(written(tree), ElementsAre("s s mode=600"));
}

TEST(ErofsWriterOf, ATreeThatLostFiles) {
  FileTree tree;
  const auto folder = tree.add(kRoot, "d", inode_of_mode(S_IFDIR | 0755), 0);
  const auto file = tree.add(folder, "a", inode_of_mode(S_IFREG | 0644), 0);
  tree.link(kRoot, "b", file, 0);
  tree.add(kRoot, "c", inode_of_mode(S_IFIFO | 0644), 0);
  EXPECT_THAT(written(tree), ElementsAre("f b links=2", "p c", "d d", "f d/a links=2"));
  tree.remove(kRoot, "d");
  EXPECT_THAT(written(tree), ElementsAre("f b", "p c"));
}

TEST(ErofsWriterOf, FoldersOfEverySize) {
  for (size_t count = 1; count <= 400; count += count < 54 ? 53 : count < 60 ? 1 : 113) {
    FileTree tree;
    Lines expected;
    for (size_t i = 0; i < count; ++i) {
      const std::string name = fmt::format("{:03}{}", i, std::string(60 + i % 7, 'n'));
      tree.add(kRoot, name, inode_of_mode(S_IFREG | 0644), 0);
      expected.push_back("f " + name);
    }
    EXPECT_THAT(written(tree), testing::ElementsAreArray(expected));
  }
}

TEST(ErofsWriterOf, LinksOfEveryLengthAroundABlock) {
  for (const size_t length : {1UL, 63UL, 4000UL, 4031UL, 4032UL, 4033UL, 4095UL}) {
    FileTree tree;
    Inode link = inode_of_mode(S_IFLNK | 0777);
    link.target = std::string(length, 't');
    tree.add(kRoot, "l", std::move(link), 0);
    EXPECT_THAT(written(tree), ElementsAre("l l " + std::string(length, 't')));
  }
}

TEST(ErofsWriterOf, FoldersThatAreVeryDeepAreRemoved) {
  FileTree tree;
  images::InodeId at = tree.add(kRoot, "d", inode_of_mode(S_IFDIR | 0755), 0);
  for (int i = 0; i < 30'000; ++i) at = tree.add(at, "d", inode_of_mode(S_IFDIR | 0755), 0);
  tree.remove(kRoot, "d");
  EXPECT_THAT(written(tree), ElementsAre());
}

}  // namespace
}  // namespace snug::test
