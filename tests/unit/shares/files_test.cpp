// Files, folders, links and names, as a guest makes, uses and loses them.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>

#include "tests/unit/shares/fixture.h"

namespace snug::test {
namespace {

using SharedFiles = Shared;

TEST_P(SharedFiles, AreFoundAndRead) {
  Scratch::write(scratch.shared("hello"), "hello, guest");
  const Answer found = driver->lookup(1, "hello");
  ASSERT_TRUE(found) << found.error;
  const auto entry = found.as<fuse_entry_out>();
  EXPECT_EQ(entry.attr.size, 12u);
  EXPECT_TRUE(S_ISREG(entry.attr.mode));
  EXPECT_EQ(driver->content(entry.nodeid), "hello, guest");
  expect_error(driver->lookup(1, "no"), ENOENT);
  expect_error(driver->lookup(entry.nodeid, "no"), ENOTDIR);
  expect_error(driver->lookup(12345, "hello"), ESTALE);
  expect_error(driver->lookup(0, "hello"), ESTALE);
  EXPECT_EQ(driver->node(1, "hello"), entry.nodeid) << "one file, one number";
}

TEST_P(SharedFiles, AttributesAreThoseOfTheHost) {
  Scratch::write(scratch.shared("file"), std::string(10'000, 'a'));
  const timespec times[2] = {{1'000'000, 123'456'789}, {2'000'000, 987'654'321}};
  ::utimensat(AT_FDCWD, scratch.shared("file").c_str(), times, 0);
  std::filesystem::create_hard_link(scratch.shared("file"), scratch.shared("twice"));
  struct stat status {};
  ASSERT_EQ(::stat(scratch.shared("file").c_str(), &status), 0);
  const fuse_attr attr = driver->attributes(driver->node(1, "file"));
  EXPECT_EQ(attr.ino, status.st_ino);
  EXPECT_EQ(attr.size, 10'000u);
  EXPECT_EQ(attr.blocks, static_cast<uint64_t>(status.st_blocks));
  EXPECT_EQ(attr.nlink, 2u);
  EXPECT_EQ(attr.atime, 1'000'000u);
  EXPECT_EQ(attr.atimensec, 123'456'789u);
  EXPECT_EQ(attr.mtime, 2'000'000u);
  EXPECT_EQ(attr.mtimensec, 987'654'321u);
  EXPECT_EQ(attr.ctime, static_cast<uint64_t>(status.st_ctim.tv_sec));
  EXPECT_EQ(attr.flags, 0u);
  EXPECT_EQ(driver->node(1, "file"), driver->node(1, "twice"));
}

TEST_P(SharedFiles, AreMadeWrittenAndRenamed) {
  const auto [node, handle] = made("new", 0640);
  EXPECT_EQ(driver->attributes(node).mode, S_IFREG | 0640u);
  const std::string data(100'000, 'x');
  EXPECT_EQ(driver->write(node, handle, 5, data).as<fuse_write_out>().size, data.size());
  EXPECT_EQ(driver->read(node, handle, 0, 200'000).payload, std::string(5, '\0') + data);
  EXPECT_TRUE(driver->release(node, handle));
  expect_error(driver->read(node, handle, 0, 10), EBADF);
  expect_error(driver->release(node, handle), EBADF);

  const Answer folder = driver->mkdir(1, "folder", 0750);
  ASSERT_TRUE(folder) << folder.error;
  const uint64_t folder_node = folder.as<fuse_entry_out>().nodeid;
  EXPECT_EQ(folder.as<fuse_entry_out>().attr.mode, S_IFDIR | 0750u);
  EXPECT_TRUE(driver->rename(1, "new", folder_node, "old"));
  EXPECT_EQ(on_host("folder/old"), std::string(5, '\0') + data);
  expect_error(driver->call(FUSE_RMDIR, 1, text_of("folder")), ENOTEMPTY);
  expect_error(driver->call(FUSE_UNLINK, 1, text_of("folder")), EISDIR);
  EXPECT_TRUE(driver->call(FUSE_UNLINK, folder_node, text_of("old")));
  expect_error(driver->call(FUSE_UNLINK, folder_node, text_of("old")), ENOENT);
  EXPECT_TRUE(driver->call(FUSE_RMDIR, 1, text_of("folder")));
  EXPECT_TRUE(std::filesystem::is_empty(scratch.shared()));
  EXPECT_EQ(driver->attributes(node).nlink, 0u) << "gone by name, known by number";
}

TEST_P(SharedFiles, CreateOpensWhatIsThere) {
  Scratch::write(scratch.shared("file"), "content");
  std::filesystem::create_directory(scratch.shared("folder"));
  std::filesystem::create_symlink("file", scratch.shared("link"));
  const Answer opened = driver->create(1, "file", 0600, O_RDWR | O_CREAT);
  ASSERT_TRUE(opened) << opened.error;
  EXPECT_EQ(opened.as<fuse_entry_out>().attr.size, 7u);
  EXPECT_EQ(on_host("file"), "content");
  expect_error(driver->create(1, "file", 0600, O_RDWR | O_CREAT | O_EXCL), EEXIST);
  expect_error(driver->create(1, "folder", 0600, O_RDWR | O_CREAT), EISDIR);
  expect_error(driver->create(1, "link", 0600, O_RDWR | O_CREAT), ELOOP);
  EXPECT_TRUE(driver->create(1, "file", 0600, O_RDWR | O_CREAT | O_TRUNC));
  EXPECT_EQ(on_host("file"), "");
}

TEST_P(SharedFiles, OpenTakesRegularFilesOnly) {
  Scratch::write(scratch.shared("file"), "content");
  ::mkfifo(scratch.shared("fifo").c_str(), 0666);
  std::filesystem::create_symlink("file", scratch.shared("link"));
  expect_error(driver->open(driver->node(1, "fifo"), O_RDONLY), ENXIO);
  expect_error(driver->open(driver->node(1, "link"), O_RDONLY), ELOOP);
  expect_error(driver->open(1, O_RDONLY), EISDIR);
  expect_error(driver->open(4711, O_RDONLY), ESTALE);
  const uint64_t file = driver->node(1, "file");
  expect_error(driver->open(file, O_ACCMODE), EINVAL);
  expect_error(driver->opendir(file), ENOTDIR);
  // Flags that would make something, or leave the file, mean nothing.
  const Answer opened =
      driver->open(file, O_RDONLY | O_CREAT | O_EXCL | O_DIRECTORY | O_NOATIME | O_PATH | O_DIRECT);
  ASSERT_TRUE(opened) << opened.error;
  EXPECT_EQ(driver->read(file, opened.as<fuse_open_out>().fh, 0, 100).payload, "content");
  EXPECT_TRUE(driver->open(file, O_WRONLY | O_TRUNC));
  EXPECT_EQ(on_host("file"), "");
}

TEST_P(SharedFiles, HandlesBelongToTheirInode) {
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

TEST_P(SharedFiles, ReadAndWriteAtTheirLimits) {
  const auto [node, handle] = made("file");
  EXPECT_EQ(driver->read(node, handle, 0, 100).payload, "");
  EXPECT_EQ(driver->write(node, handle, 0, "").as<fuse_write_out>().size, 0u);
  const std::string most(1 << 20, 'm');
  EXPECT_EQ(driver->write(node, handle, 3, most).as<fuse_write_out>().size, most.size());
  EXPECT_EQ(driver->read(node, handle, 3, 1 << 20).payload, most);
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

TEST_P(SharedFiles, AppendGoesToTheEndOfNow) {
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

TEST_P(SharedFiles, SetattrChangesWhatItNames) {
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

TEST_P(SharedFiles, LinksAreText) {
  const Answer answer = driver->symlink(1, "link", "/etc/../any where");
  ASSERT_TRUE(answer) << answer.error;
  const auto entry = answer.as<fuse_entry_out>();
  EXPECT_TRUE(S_ISLNK(entry.attr.mode));
  EXPECT_EQ(driver->call(FUSE_READLINK, entry.nodeid).payload, "/etc/../any where");
  expect_error(driver->call(FUSE_READLINK, entry.nodeid, {}, 5), ENAMETOOLONG);
  expect_error(driver->call(FUSE_READLINK, 1), EINVAL);
  expect_error(driver->symlink(1, "link", "x"), EEXIST);
  expect_error(driver->symlink(1, "empty", ""), ENOENT);
  EXPECT_TRUE(driver->symlink(1, "long", std::string(4095, 'l')));
  expect_error(driver->symlink(1, "longer", std::string(4096, 'l')), ENAMETOOLONG);
  expect_error(driver->symlink(1, "longer", std::string(9000, 'l')), EINVAL);
  expect_error(driver->lookup(entry.nodeid, "x"), ENOTDIR);
}

TEST_P(SharedFiles, HardLinks) {
  const auto [node, handle] = made("one");
  const Answer answer = driver->link(node, 1, "two");
  ASSERT_TRUE(answer) << answer.error;
  EXPECT_EQ(answer.as<fuse_entry_out>().nodeid, node);
  EXPECT_EQ(answer.as<fuse_entry_out>().attr.nlink, 2u);
  expect_error(driver->link(node, 1, "two"), EEXIST);
  expect_error(driver->link(1, 1, "root"), EPERM);
  expect_error(driver->link(999, 1, "three"), ESTALE);
  expect_error(driver->link(node, node, "three"), ENOTDIR);
  // Of a link itself, not of what it leads to.
  driver->symlink(1, "link", "one");
  ASSERT_TRUE(driver->link(driver->node(1, "link"), 1, "link2"));
  EXPECT_EQ(driver->call(FUSE_READLINK, driver->node(1, "link2")).payload, "one");
}

TEST_P(SharedFiles, KindsOfFiles) {
  const auto kind = [this](const char* name, uint32_t mode) {
    const Answer answer = driver->mknod(1, name, mode);
    EXPECT_TRUE(answer) << name << answer.error;
    struct stat status {};
    EXPECT_EQ(::lstat(scratch.shared(name).c_str(), &status), 0);
    EXPECT_EQ(status.st_mode, mode) << name;
    return answer.as<fuse_entry_out>().attr.mode;
  };
  EXPECT_EQ(kind("file", S_IFREG | 0644), S_IFREG | 0644u);
  EXPECT_EQ(kind("fifo", S_IFIFO | 0622), S_IFIFO | 0622u);
  EXPECT_EQ(kind("socket", S_IFSOCK | 0777), S_IFSOCK | 0777u);
  expect_error(driver->mknod(1, "folder", S_IFDIR | 0755), EINVAL);
  expect_error(driver->mknod(1, "link", S_IFLNK | 0755), EINVAL);
  expect_error(driver->mknod(1, "nothing", 0644), EINVAL);
  expect_error(driver->mknod(1, "file", S_IFREG | 0644), EEXIST);
  expect_error(driver->mkdir(1, "file"), EEXIST);
  expect_error(driver->mkdir(driver->node(1, "file"), "x"), ENOTDIR);
}

TEST_P(SharedFiles, RenameWithFlags) {
  Scratch::write(scratch.shared("one"), "1");
  Scratch::write(scratch.shared("two"), "2");
  expect_error(driver->rename(1, "one", 1, "two", 1 /*RENAME_NOREPLACE*/), EEXIST);
  EXPECT_TRUE(driver->rename(1, "one", 1, "two", 2 /*RENAME_EXCHANGE*/));
  EXPECT_EQ(on_host("one"), "2");
  expect_error(driver->rename(1, "one", 1, "two", 4 /*RENAME_WHITEOUT*/), EINVAL);
  expect_error(driver->rename(1, "one", 1, "two", 1u << 31), EINVAL);
  expect_error(driver->rename(1, "none", 1, "two"), ENOENT);
  EXPECT_TRUE(driver->rename(1, "one", 1, "two"));
  EXPECT_EQ(on_host("two"), "2");
  expect_error(driver->rename(1, "two", 99, "three"), ESTALE);
  const uint64_t folder = driver->mkdir(1, "folder").as<fuse_entry_out>().nodeid;
  expect_error(driver->rename(1, "folder", folder, "in itself"), EINVAL);
}

TEST_P(SharedFiles, OpenFilesOutliveTheirNames) {
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

TEST_P(SharedFiles, TemporaryFiles) {
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

TEST_P(SharedFiles, FallocateSeekAndCopy) {
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

TEST_P(SharedFiles, SyncsAndNumbers) {
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

TEST_P(SharedFiles, AccessByWhatTheGuestSees) {
  const auto [node, handle] = made("file", 0640);
  const auto may = [&, n = node](uint32_t mask) {
    return driver->call(FUSE_ACCESS, n, bytes_of(fuse_access_in{.mask = mask})).error;
  };
  EXPECT_EQ(may(R_OK | W_OK), 0);
  EXPECT_EQ(may(X_OK), EACCES);
  driver->uid = driver->gid = 4321;
  EXPECT_EQ(may(R_OK), EACCES);
  EXPECT_EQ(may(F_OK), 0);
}

TEST_P(SharedFiles, ReadOnlyMeansNothingChanges) {
  Scratch::write(scratch.shared("file"), "content");
  begin({.readonly = true});
  const uint64_t node = driver->node(1, "file");
  EXPECT_EQ(driver->content(node), "content");
  expect_error(driver->open(node, O_WRONLY), EROFS);
  expect_error(driver->open(node, O_RDWR), EROFS);
  expect_error(driver->open(node, O_RDONLY | O_TRUNC), EROFS);
  const std::string arguments(64, '\0');
  for (const uint32_t opcode :
       {FUSE_SETATTR, FUSE_SYMLINK, FUSE_MKNOD, FUSE_MKDIR, FUSE_UNLINK, FUSE_RMDIR, FUSE_RENAME,
        FUSE_RENAME2, FUSE_LINK, FUSE_WRITE, FUSE_SETXATTR, FUSE_REMOVEXATTR, FUSE_CREATE, FUSE_TMPFILE,
        FUSE_FALLOCATE, FUSE_COPY_FILE_RANGE})
    EXPECT_EQ(driver->call(opcode, 1, arguments).error, EROFS) << opcode;
  EXPECT_EQ(driver->call(FUSE_ACCESS, node, bytes_of(fuse_access_in{.mask = W_OK})).error, EROFS);
  EXPECT_EQ(on_host("file"), "content");
}

TEST_P(SharedFiles, OneFileInAFolderOfNothingElse) {
  Scratch::write(scratch.path("single"), "only me");
  Scratch::write(scratch.path("beside"), "not seen");
  ShareOptions options{.real_ids = ::geteuid() == 0, .file_name = "shown", .resolver = GetParam()};
  const auto single = share(scratch.path("single"), options);
  Driver guest(*single);
  ASSERT_TRUE(guest.init());
  const fuse_attr root = guest.attributes(1);
  EXPECT_EQ(root.mode, S_IFDIR | 0555u);
  const uint64_t node = guest.node(1, "shown");
  EXPECT_EQ(guest.content(node), "only me");
  expect_error(guest.lookup(1, "single"), ENOENT);
  expect_error(guest.lookup(1, "beside"), ENOENT);
  expect_error(guest.lookup(1, ".."), EINVAL);
  expect_error(guest.lookup(node, "x"), ENOTDIR);
  const uint64_t handle = guest.opendir(1).as<fuse_open_out>().fh;
  for (const bool plus : {false, true}) {
    const auto listed = guest.list(1, handle, plus);
    ASSERT_EQ(listed.size(), 3u);
    EXPECT_EQ(listed[0].name, ".");
    EXPECT_EQ(listed[1].name, "..");
    EXPECT_EQ(listed[2].name, "shown");
    EXPECT_EQ(listed[0].number, root.ino);
    EXPECT_EQ(listed[1].number, root.ino);
    EXPECT_EQ(listed[2].number, guest.attributes(node).ino);
  }
  EXPECT_TRUE(guest.call(FUSE_FSYNCDIR, 1, bytes_of(fuse_fsync_in{.fh = handle})));
  EXPECT_TRUE(guest.releasedir(1, handle));
  EXPECT_TRUE(guest.call(FUSE_STATFS, 1));
  EXPECT_TRUE(guest.call(FUSE_SYNCFS, 1, bytes_of(fuse_syncfs_in{})));
  EXPECT_EQ(guest.getxattr(1, "user.x", 100).error, ENODATA);
  for (const uint32_t opcode :
       {FUSE_SETATTR, FUSE_SYMLINK, FUSE_MKNOD, FUSE_MKDIR, FUSE_UNLINK, FUSE_RMDIR, FUSE_RENAME,
        FUSE_RENAME2, FUSE_LINK, FUSE_SETXATTR, FUSE_CREATE, FUSE_TMPFILE})
    EXPECT_EQ(guest.call(opcode, 1, std::string(64, '\0')).error, EPERM) << opcode;
  EXPECT_EQ(guest.rename(node, "x", 1, "y").error, ENOTDIR);
  const uint64_t writer = guest.open(node, O_RDWR).as<fuse_open_out>().fh;
  EXPECT_TRUE(guest.write(node, writer, 0, "ONLY"));
  EXPECT_EQ(Scratch::read(scratch.path("single")), "ONLY me");
  EXPECT_EQ(Scratch::read(scratch.path("beside")), "not seen");
}

SNUG_BOTH_RESOLVERS(SharedFiles);

}  // namespace
}  // namespace snug::test
