// Ways of sharing that are not the usual one: read-only, a single file.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "tests/unit/shares/fixture.h"

namespace snug::test {
namespace {

using SharedOtherwise = Shared;

TEST_P(SharedOtherwise, AccessByWhatTheGuestSees) {
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

TEST_P(SharedOtherwise, ReadOnlyMeansNothingChanges) {
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

TEST_P(SharedOtherwise, OneFileInAFolderOfNothingElse) {
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

SNUG_BOTH_RESOLVERS(SharedOtherwise);

}  // namespace
}  // namespace snug::test
