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

SNUG_BOTH_RESOLVERS(SharedFiles);

}  // namespace
}  // namespace snug::test
