// What is open: reading and writing, sizes and times, files without a name.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "tests/unit/devices/noted_writes.h"
#include "tests/unit/shares/fixture.h"

namespace snug::test {
namespace {

using OpenFiles = Shared;

TEST_P(OpenFiles, HandlesBelongToTheirInode) {
  const auto [one, handle] = made("one");
  const auto [two, other] = made("two");
  expect_error(driver->read(two, handle, 0, 10), EBADF);
  expect_error(driver->write(one, other, 0, "x"), EBADF);
  expect_error(driver->release(two, handle), EBADF);
  expect_error(driver->read(one, 999, 0, 10), EBADF);
  const uint64_t folder = driver->opendir(1).as<fuse_open_out>().fh;
  expect_error(driver->read(1, folder, 0, 10), EISDIR);
  expect_error(driver->write(1, folder, 0, "x"), EISDIR);
  EXPECT_EQ(driver->call(FUSE_READDIR, one, bytes_of(fuse_read_in{.fh = handle, .size = 4096})).error,
            ENOTDIR);
  EXPECT_EQ(driver->call(FUSE_LSEEK, 1, bytes_of(fuse_lseek_in{.fh = folder, .whence = SEEK_DATA})).error,
            EISDIR);
}

TEST_P(OpenFiles, ReadAndWriteAtTheirLimits) {
  const auto [node, handle] = made("file");
  EXPECT_EQ(driver->read(node, handle, 0, 100).payload, "");
  EXPECT_EQ(driver->write(node, handle, 0, "").as<fuse_write_out>().size, 0u);
  const std::string most(1 << 20, 'm');
  EXPECT_EQ(driver->write(node, handle, 3, most).as<fuse_write_out>().size, most.size());
  const NotedWrites writes(driver->memory());
  EXPECT_EQ(driver->read(node, handle, 3, 1 << 20).payload, most);
  EXPECT_EQ(writes.missed(), std::vector<uint64_t>());
  expect_error(driver->write(node, handle, UINT64_MAX, "x"), EINVAL);
  expect_error(driver->write(node, handle, INT64_MAX, "x"), EINVAL);
  expect_error(driver->read(node, handle, UINT64_MAX - 4, 100), EINVAL);
  // A size that lies about the data behind it.
  const fuse_write_in lies{.fh = handle, .size = 100};
  expect_error(driver->call(FUSE_WRITE, node, bytes_of(lies), 64, "ten bytes."), EINVAL);
  EXPECT_EQ(driver->read(node, handle, 0, 4).payload, std::string("\0\0\0m", 4));
  const uint64_t reader = driver->open(node, O_RDONLY).as<fuse_open_out>().fh;
  expect_error(driver->write(node, reader, 0, "x"), EBADF);
  const uint64_t writer = driver->open(node, O_WRONLY).as<fuse_open_out>().fh;
  expect_error(driver->read(node, writer, 0, 5), EBADF);
}

TEST_P(OpenFiles, AppendGoesToTheEndOfNow) {
  const auto [node, handle] = made("log", 0644, O_WRONLY | O_APPEND);
  Scratch::write(scratch.shared("log"), "by the host\n");
  EXPECT_TRUE(driver->write(node, handle, 0, "by the guest\n", 0, O_WRONLY | O_APPEND));
  EXPECT_EQ(on_host("log"), "by the host\nby the guest\n");
  // fcntl(F_SETFL) in the guest: what counts is what comes with the write.
  EXPECT_TRUE(driver->write(node, handle, 0, "BY", 0, O_WRONLY));
  EXPECT_EQ(on_host("log"), "BY the host\nby the guest\n");
  // A guest that writes back knows where its end is, and reads what is around.
  begin({.cache = ShareCache::kAlways});
  const uint64_t again = driver->node(1, "log");
  const uint64_t back = driver->open(again, O_WRONLY | O_APPEND).as<fuse_open_out>().fh;
  EXPECT_EQ(driver->read(again, back, 0, 2).payload, "BY");
  EXPECT_TRUE(driver->write(again, back, 0, "by", 0, O_WRONLY | O_APPEND));
  EXPECT_EQ(on_host("log"), "by the host\nby the guest\n");
}

TEST_P(OpenFiles, SetattrChangesWhatItNames) {
  const auto [node, handle] = made("file");
  driver->write(node, handle, 0, "0123456789");
  Answer answer = driver->setattr(node, {.valid = FATTR_SIZE, .size = 4});
  EXPECT_EQ(answer.as<fuse_attr_out>().attr.size, 4u);
  answer = driver->setattr(node, {.valid = FATTR_SIZE | FATTR_FH, .fh = handle, .size = 6});
  EXPECT_EQ(answer.as<fuse_attr_out>().attr.size, 6u);
  expect_error(driver->setattr(node, {.valid = FATTR_SIZE | FATTR_FH, .fh = 999, .size = 6}), EBADF);
  expect_error(driver->setattr(node, {.valid = FATTR_SIZE, .size = UINT64_MAX}), EFBIG);
  expect_error(driver->setattr(1, {.valid = FATTR_SIZE, .size = 0}), EISDIR);
  EXPECT_EQ(on_host("file"), std::string("0123\0\0", 6));
  answer = driver->setattr(
      node, {.valid = FATTR_ATIME | FATTR_MTIME, .atime = 11, .mtime = 22, .atimensec = 33, .mtimensec = 44});
  fuse_attr attr = answer.as<fuse_attr_out>().attr;
  EXPECT_EQ(attr.atime, 11u);
  EXPECT_EQ(attr.mtime, 22u);
  EXPECT_EQ(attr.atimensec, 33u);
  EXPECT_EQ(attr.mtimensec, 44u);
  attr = driver->setattr(node, {.valid = FATTR_MTIME | FATTR_MTIME_NOW}).as<fuse_attr_out>().attr;
  EXPECT_EQ(attr.atime, 11u);
  EXPECT_GT(attr.mtime, 1'000'000u);
  EXPECT_EQ(driver->chmod(node, 0400).as<fuse_attr_out>().attr.mode, S_IFREG | 0400u);
  EXPECT_EQ(driver->chmod(1, 01777).as<fuse_attr_out>().attr.mode, S_IFDIR | 01777u);
  // Before 1970, and an absurd part of a second.
  answer = driver->setattr(
      node, {.valid = FATTR_MTIME, .mtime = static_cast<uint64_t>(-5), .mtimensec = UINT32_MAX});
  EXPECT_EQ(static_cast<int64_t>(answer.as<fuse_attr_out>().attr.mtime), -5);
  std::filesystem::create_symlink("file", scratch.shared("link"));
  const uint64_t link = driver->node(1, "link");
  EXPECT_EQ(driver->setattr(link, {.valid = FATTR_MTIME, .mtime = 77}).as<fuse_attr_out>().attr.mtime, 77u);
  EXPECT_NE(driver->attributes(node).mtime, 77u) << "of the link, not of what it leads to";
  ::mkfifo(scratch.shared("fifo").c_str(), 0666);
  expect_error(driver->setattr(driver->node(1, "fifo"), {.valid = FATTR_SIZE, .size = 0}), EINVAL);
  EXPECT_EQ(driver->chmod(driver->node(1, "fifo"), 0600).as<fuse_attr_out>().attr.mode, S_IFIFO | 0600u);
}

TEST_P(OpenFiles, OpenFilesOutliveTheirNames) {
  const auto [node, handle] = made("file");
  driver->write(node, handle, 0, "still here");
  EXPECT_TRUE(driver->call(FUSE_UNLINK, 1, text_of("file")));
  Scratch::write(scratch.shared("file"), "another");
  EXPECT_EQ(driver->read(node, handle, 0, 100).payload, "still here");
  EXPECT_EQ(driver->attributes(node).nlink, 0u);
  EXPECT_NE(driver->node(1, "file"), node);
  EXPECT_EQ(driver->chmod(node, 0600).as<fuse_attr_out>().attr.mode, S_IFREG | 0600u);
  EXPECT_EQ(driver->content(node), "still here") << "opened anew by its number";
  // Renamed over: the old one is the guest's while it has it open.
  made("other");
  driver->rename(1, "other", 1, "file");
  EXPECT_TRUE(driver->setattr(node, {.valid = FATTR_MODE | FATTR_FH, .fh = handle, .mode = 0640}));
}

TEST_P(OpenFiles, TemporaryFiles) {
  const Answer answer = driver->call(
      FUSE_TMPFILE, 1, bytes_of(fuse_create_in{.flags = O_RDWR, .mode = S_IFREG | 0640}) + text_of("#1"));
  if (answer.error == EOPNOTSUPP) GTEST_SKIP() << "no O_TMPFILE here";
  ASSERT_TRUE(answer) << answer.error;
  const uint64_t node = answer.as<fuse_entry_out>().nodeid;
  const uint64_t handle = answer.as<fuse_open_out>(sizeof(fuse_entry_out)).fh;
  EXPECT_EQ(answer.as<fuse_entry_out>().attr.mode, S_IFREG | 0640u);
  EXPECT_TRUE(driver->write(node, handle, 0, "from nowhere"));
  EXPECT_TRUE(std::filesystem::is_empty(scratch.shared()));
  ASSERT_TRUE(driver->link(node, 1, "named"));
  EXPECT_EQ(on_host("named"), "from nowhere");
}

TEST_P(OpenFiles, FallocateSeekAndCopy) {
  const auto [node, handle] = made("file");
  const std::string data(64 << 10, 'd');
  driver->write(node, handle, 0, data);
  const auto allocate = [&, n = node, h = handle](uint32_t mode, uint64_t offset, uint64_t length) {
    const fuse_fallocate_in in{.fh = h, .offset = offset, .length = length, .mode = mode};
    return driver->call(FUSE_FALLOCATE, n, bytes_of(in)).error;
  };
  EXPECT_EQ(allocate(0, 64 << 10, 4096), 0);
  EXPECT_EQ(driver->attributes(node).size, 68u << 10);
  EXPECT_EQ(allocate(1 /*KEEP_SIZE*/, 0, 1 << 20), 0);
  EXPECT_EQ(driver->attributes(node).size, 68u << 10);
  EXPECT_EQ(allocate(3 /*PUNCH_HOLE*/, 16 << 10, 16 << 10), 0);
  EXPECT_EQ(driver->read(node, handle, (16 << 10) - 1, 3).payload, std::string("d\0\0", 3));
  EXPECT_EQ(allocate(0x80, 0, 4096), EOPNOTSUPP);
  EXPECT_EQ(allocate(0, UINT64_MAX, 2), EINVAL);
  EXPECT_EQ(allocate(0, 0, 0), EINVAL);
  const auto seek = [&, n = node, h = handle](uint32_t whence, uint64_t offset) {
    return driver->call(FUSE_LSEEK, n, bytes_of(fuse_lseek_in{.fh = h, .offset = offset, .whence = whence}));
  };
  EXPECT_EQ(seek(SEEK_HOLE, 0).as<fuse_lseek_out>().offset, 16u << 10);
  EXPECT_EQ(seek(SEEK_DATA, 16 << 10).as<fuse_lseek_out>().offset, 32u << 10);
  EXPECT_EQ(seek(SEEK_DATA, 1 << 20).error, ENXIO);
  EXPECT_EQ(seek(SEEK_SET, 0).error, EINVAL);
  EXPECT_EQ(seek(SEEK_DATA, UINT64_MAX).error, ENXIO);
  const auto [copy, copy_handle] = made("copy");
  fuse_copy_file_range_in in{
      .fh_in = handle, .off_in = 0, .nodeid_out = copy, .fh_out = copy_handle, .off_out = 10, .len = 5};
  EXPECT_EQ(driver->call(FUSE_COPY_FILE_RANGE, node, bytes_of(in)).as<fuse_write_out>().size, 5u);
  EXPECT_EQ(on_host("copy"), std::string(10, '\0') + "ddddd");
  in.flags = 1;
  EXPECT_EQ(driver->call(FUSE_COPY_FILE_RANGE, node, bytes_of(in)).error, EINVAL);
  in.flags = 0;
  in.nodeid_out = node;
  EXPECT_EQ(driver->call(FUSE_COPY_FILE_RANGE, node, bytes_of(in)).error, EBADF);
  in.off_in = UINT64_MAX;
  in.nodeid_out = copy;
  EXPECT_EQ(driver->call(FUSE_COPY_FILE_RANGE, node, bytes_of(in)).error, EINVAL);
}

// The host does not know yet what is data.
TEST_P(OpenFiles, HolesAreNotToldToAGuestThatWritesBack) {
  begin({.cache = ShareCache::kAlways});
  const auto [node, handle] = made("file");
  const fuse_lseek_in in{.fh = handle, .offset = 0, .whence = SEEK_DATA};
  expect_error(driver->call(FUSE_LSEEK, node, bytes_of(in)), ENOSYS);
}

TEST_P(OpenFiles, ChangingNothingIsAChange) {
  const uint64_t node = made("file", 0640).first;
  for (const fuse_setattr_in& in : {fuse_setattr_in{.valid = FATTR_MODE, .mode = 0640},
                                    fuse_setattr_in{.valid = FATTR_UID | FATTR_GID}}) {
    const fuse_attr before = driver->attributes(node);
    ::usleep(30'000);  // longer than a tick of the clock
    const fuse_attr after = driver->setattr(node, in).as<fuse_attr_out>().attr;
    EXPECT_EQ(after.mode, before.mode);
    EXPECT_NE(std::pair(after.ctime, after.ctimensec), std::pair(before.ctime, before.ctimensec));
    EXPECT_EQ(std::pair(after.mtime, after.mtimensec), std::pair(before.mtime, before.mtimensec));
  }
}

TEST_P(OpenFiles, SyncsAndNumbers) {
  const auto [node, handle] = made("file");
  const fuse_fsync_in in{.fh = handle};
  EXPECT_TRUE(driver->call(FUSE_FSYNC, node, bytes_of(in)));
  EXPECT_TRUE(driver->call(FUSE_FSYNC, node, bytes_of(fuse_fsync_in{.fh = handle, .fsync_flags = 1})));
  EXPECT_EQ(driver->call(FUSE_FSYNC, node, bytes_of(fuse_fsync_in{.fh = 99})).error, EBADF);
  const uint64_t folder = driver->opendir(1).as<fuse_open_out>().fh;
  EXPECT_TRUE(driver->call(FUSE_FSYNCDIR, 1, bytes_of(fuse_fsync_in{.fh = folder})));
  EXPECT_TRUE(driver->call(FUSE_SYNCFS, 1, bytes_of(fuse_syncfs_in{})));
  EXPECT_TRUE(driver->call(FUSE_FLUSH, node, bytes_of(fuse_flush_in{.fh = handle})));
  EXPECT_EQ(driver->call(FUSE_FLUSH, node, bytes_of(fuse_flush_in{.fh = 99})).error, EBADF);
  const Answer answer = driver->call(FUSE_STATFS, 1);
  EXPECT_GT(answer.as<fuse_statfs_out>().st.blocks, 0u);
  EXPECT_GT(answer.as<fuse_statfs_out>().st.bsize, 0u);
  EXPECT_GT(answer.as<fuse_statfs_out>().st.namelen, 0u);
}

SNUG_BOTH_RESOLVERS(OpenFiles);

}  // namespace
}  // namespace snug::test
