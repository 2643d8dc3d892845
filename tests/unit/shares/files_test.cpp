#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "tests/unit/shares/driver.h"

namespace snug::test {
namespace {

class SharedFiles : public ::testing::Test {
 protected:
  SharedFiles() : session_(share(scratch_.shared(), {.real_ids = ::geteuid() == 0})), driver_(*session_) {
    ::umask(0);
    EXPECT_TRUE(driver_.init());
  }

  Scratch scratch_;
  std::unique_ptr<ShareSession> session_;
  Driver driver_;
};

TEST_F(SharedFiles, AreFoundAndRead) {
  Scratch::write(scratch_.shared("hello"), "hello, guest");
  const Answer found = driver_.lookup(1, "hello");
  ASSERT_TRUE(found) << found.error;
  const auto entry = found.as<fuse_entry_out>();
  EXPECT_EQ(entry.attr.size, 12u);
  EXPECT_TRUE(S_ISREG(entry.attr.mode));
  EXPECT_EQ(entry.entry_valid, 1u);
  EXPECT_EQ(driver_.content(entry.nodeid), "hello, guest");
  EXPECT_EQ(driver_.lookup(1, "no").error, ENOENT);
}

TEST_F(SharedFiles, AreMadeWrittenAndRenamed) {
  const Answer made = driver_.create(1, "new", 0640);
  ASSERT_TRUE(made) << made.error;
  const auto entry = made.as<fuse_entry_out>();
  const auto opened = made.as<fuse_open_out>(sizeof entry);
  EXPECT_EQ(entry.attr.mode, S_IFREG | 0640u);
  const std::string data(100'000, 'x');
  const Answer written = driver_.write(entry.nodeid, opened.fh, 5, data);
  ASSERT_TRUE(written) << written.error;
  EXPECT_EQ(written.as<fuse_write_out>().size, data.size());
  EXPECT_EQ(driver_.read(entry.nodeid, opened.fh, 0, 200'000).payload, std::string(5, '\0') + data);
  EXPECT_TRUE(driver_.release(entry.nodeid, opened.fh));
  EXPECT_EQ(driver_.read(entry.nodeid, opened.fh, 0, 10).error, EBADF);

  const Answer folder = driver_.mkdir(1, "folder", 0750);
  ASSERT_TRUE(folder) << folder.error;
  EXPECT_EQ(folder.as<fuse_entry_out>().attr.mode, S_IFDIR | 0750u);
  EXPECT_TRUE(driver_.rename(1, "new", folder.as<fuse_entry_out>().nodeid, "old"));
  EXPECT_EQ(Scratch::read(scratch_.shared("folder/old")), std::string(5, '\0') + data);
  EXPECT_EQ(driver_.call(FUSE_RMDIR, 1, text_of("folder")).error, ENOTEMPTY);
  EXPECT_TRUE(driver_.call(FUSE_UNLINK, folder.as<fuse_entry_out>().nodeid, text_of("old")));
  EXPECT_TRUE(driver_.call(FUSE_RMDIR, 1, text_of("folder")));
  EXPECT_TRUE(std::filesystem::is_empty(scratch_.shared()));
}

TEST_F(SharedFiles, AreListed) {
  for (int i = 0; i < 300; ++i) Scratch::write(scratch_.shared("file" + std::to_string(i)), "");
  const auto handle = driver_.opendir(1).as<fuse_open_out>().fh;
  EXPECT_EQ(driver_.list(1, handle, false).size(), 302u);
  EXPECT_EQ(driver_.list(1, handle, true).size(), 302u);
  EXPECT_TRUE(driver_.releasedir(1, handle));
}

}  // namespace
}  // namespace snug::test
