#include "vmm/host/disk_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

namespace snug {
namespace {

using testing::HasSubstr;

class DiskFileTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "/snug-disk-XXXXXX";
    UniqueFd(::mkstemp(path_.data())).reset();
  }
  void TearDown() override { ::unlink(path_.c_str()); }
  Result<uint64_t> size_of(off_t bytes, bool ephemeral) {
    EXPECT_EQ(::truncate(path_.c_str(), bytes), 0);
    DiskSpec disk;
    disk.path = path_;
    disk.ephemeral = ephemeral;
    auto file = SNUG_TRY(DiskFile::open(disk));
    return file.config().block.size;
  }
  std::string path_;
};

TEST_F(DiskFileTest, TheLastSectorMayBeAPart) {
  for (const bool ephemeral : {false, true}) {
    EXPECT_EQ(size_of(1300, ephemeral).value_or(0), 1536U);
    EXPECT_EQ(size_of(1536, ephemeral).value_or(0), 1536U);
    EXPECT_EQ(size_of(1, ephemeral).value_or(0), 512U);
  }
}

TEST_F(DiskFileTest, AnEmptyOneIsNoDisk) {
  const auto size = size_of(0, false);
  ASSERT_FALSE(size);
  EXPECT_THAT(size.error().text(), HasSubstr("empty"));
}

TEST_F(DiskFileTest, AFileThatIsMemoryHasTheSizeOfMemory) {
  DiskSpec disk;
  disk.path = path_;
  disk.mode = DiskMode::kPmem;
  const auto opened = [&](off_t bytes) {
    EXPECT_EQ(::truncate(path_.c_str(), bytes), 0);
    return DiskFile::open(disk);
  };
  EXPECT_FALSE(opened(0));
  const auto odd = opened(5000);
  ASSERT_FALSE(odd);
  EXPECT_THAT(odd.error().text(), HasSubstr("truncate -s %2M"));
  disk.readonly = true;
  const auto read_only = opened(5000);
  ASSERT_TRUE(read_only);
  EXPECT_TRUE(read_only->is_pmem());
  EXPECT_TRUE(read_only->pmem()->read_only);
  EXPECT_EQ(read_only->pmem()->bytes, 5000U);
  disk.readonly = false;
  EXPECT_FALSE(opened(4 << 20)) << "others read it";
}

TEST_F(DiskFileTest, AFileThatIsMemoryIsMeasuredAtEachBoot) {
  DiskSpec disk;
  disk.path = path_;
  disk.mode = DiskMode::kPmem;
  EXPECT_EQ(::truncate(path_.c_str(), 4 << 20), 0);
  const auto file = DiskFile::open(disk);
  ASSERT_TRUE(file);
  EXPECT_EQ(::truncate(path_.c_str(), 2 << 20), 0);
  EXPECT_EQ(file->pmem()->bytes, 2U << 20);
  EXPECT_EQ(::truncate(path_.c_str(), 4096), 0);
  EXPECT_FALSE(file->pmem());
}

}  // namespace
}  // namespace snug
