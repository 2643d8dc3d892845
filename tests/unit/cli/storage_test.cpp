// Storage of machines, in a folder of the test's own. mke2fs is the host's; without one a part is skipped.
#include "vmm/cli/storage.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "vmm/base/unique_fd.h"

namespace snug::cli {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
constexpr uint64_t kMiB = 1 << 20;

class StorageTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/snug-storage-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    ::setenv("XDG_DATA_HOME", folder_.c_str(), 1);
    path_ = std::getenv("PATH");
  }
  void TearDown() override {
    ::setenv("PATH", path_.c_str(), 1);
    ::unsetenv("XDG_DATA_HOME");
    fs::remove_all(folder_);
  }
  static bool has_mke2fs() { return ::access("/usr/sbin/mke2fs", X_OK) == 0; }

  fs::path folder_;
  std::string path_;
};

TEST_F(StorageTest, MadeAtFirstUseThenGrows) {
  if (!has_mke2fs()) GTEST_SKIP() << "no mke2fs in /usr/sbin";
  ::setenv("PATH", "/nowhere", 1);
  EXPECT_FALSE(has_storage("web"));
  const auto disk = storage_disk("web", 10240 * kMiB);
  ASSERT_TRUE(disk) << disk.error().text();
  EXPECT_EQ(fs::file_size(*disk), 10240 * kMiB);
  struct stat status {};
  ASSERT_EQ(::stat(disk->c_str(), &status), 0);
  EXPECT_LT(status.st_blocks * 512, 32 * static_cast<off_t>(kMiB)) << "not sparse";
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  // The superblock's magic number.
  std::ifstream file(*disk, std::ios::binary);
  file.seekg(1024 + 0x38);
  EXPECT_EQ(file.get(), 0x53);
  EXPECT_EQ(file.get(), 0xef);

  EXPECT_EQ(*storage_disk("web", 10240 * kMiB), *disk);
  EXPECT_EQ(*storage_disk("web", 20480 * kMiB), *disk);
  EXPECT_EQ(fs::file_size(*disk), 20480 * kMiB);
  const auto smaller = storage_disk("web", 10240 * kMiB);
  ASSERT_FALSE(smaller);
  EXPECT_THAT(smaller.error().text(),
              AllOf(HasSubstr("has 20G, and can only grow"), HasSubstr("snug rm --storage web")));
  EXPECT_TRUE(has_storage("web"));
  EXPECT_TRUE(remove_storage("web"));
  EXPECT_FALSE(has_storage("web"));
  EXPECT_THAT(remove_storage("web").error().text(), HasSubstr("web has no storage"));
}

TEST_F(StorageTest, OneThatIsInUseStays) {
  if (!has_mke2fs()) GTEST_SKIP() << "no mke2fs in /usr/sbin";
  const auto disk = storage_disk("db", 64 * kMiB);
  ASSERT_TRUE(disk) << disk.error().text();
  const auto file = open_file(disk->string(), O_RDWR);
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  ASSERT_EQ(::fcntl(file->get(), F_OFD_SETLK, &lock), 0);
  EXPECT_THAT(remove_storage("db").error().text(), HasSubstr("is in use"));
  EXPECT_TRUE(has_storage("db"));
}

TEST_F(StorageTest, WhatFailsLeavesNothing) {
  std::ofstream(folder_ / "mke2fs") << "#!/bin/sh\necho 'it is full' >&2; exit 1\n";
  fs::permissions(folder_ / "mke2fs", fs::perms::owner_all);
  ::setenv("PATH", folder_.c_str(), 1);
  const auto disk = storage_disk("web", 64 * kMiB);
  ASSERT_FALSE(disk);
  EXPECT_THAT(disk.error().text(), AllOf(HasSubstr("storage of web"), HasSubstr("it is full")));
  for (const auto& entry : fs::directory_iterator(folder_ / "snug/storage"))
    EXPECT_EQ(entry.path().filename(), ".lock");
}

}  // namespace
}  // namespace snug::cli
