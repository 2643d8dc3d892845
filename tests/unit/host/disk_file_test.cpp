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

}  // namespace
}  // namespace snug
