// A guest that wants out: by names, by links, by whatever changes under the server's hands. Each case in both
// ways of finding names; nothing outside of the share is read, made, changed or lost.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "tests/unit/shares/escape_fixture.h"

namespace snug::test {
namespace {

const std::vector<std::string> kBadNames = {
    "",
    ".",
    "..",
    "/",
    "//",
    "../secret",
    "../outside",
    "../outside/secret",
    "folder/../../secret",
    "folder/file",
    "folder/",
    "/etc/passwd",
    "./folder",
    "./..",
    "../",
    "/..",
    "folder/..",
    "\xff/../..",
    std::string(255, 'a') + "/..",
};

TEST_P(Escape, NamesAreOneComponent) {
  const uint64_t file = driver->walk("folder/file");
  const uint64_t folder = driver->node(1, "folder");
  for (const std::string& name : kBadNames) {
    SCOPED_TRACE(name);
    for (const uint64_t parent : {uint64_t{1}, folder}) {
      expect_error(driver->lookup(parent, name), EINVAL);
      expect_error(driver->create(parent, name, 0644, O_RDWR | O_CREAT), EINVAL);
      expect_error(driver->mkdir(parent, name), EINVAL);
      expect_error(driver->mknod(parent, name, S_IFREG | 0644), EINVAL);
      expect_error(driver->symlink(parent, name, "x"), EINVAL);
      expect_error(driver->link(file, parent, name), EINVAL);
      expect_error(driver->call(FUSE_UNLINK, parent, text_of(name)), EINVAL);
      expect_error(driver->call(FUSE_RMDIR, parent, text_of(name)), EINVAL);
      expect_error(driver->rename(parent, name, 1, "new"), EINVAL);
      expect_error(driver->rename(1, "folder", parent, name), EINVAL);
      expect_error(driver->rename(parent, name, 1, "new", 1), EINVAL);
      expect_error(driver->rename(1, "folder", parent, name, 2), EINVAL);
    }
  }
}

TEST_P(Escape, NamesWithoutAnEnd) {
  const std::string endless = "folder";
  expect_error(driver->call(FUSE_LOOKUP, 1, endless), EINVAL);
  expect_error(driver->call(FUSE_UNLINK, 1, endless), EINVAL);
  expect_error(driver->call(FUSE_RENAME, 1, bytes_of(fuse_rename_in{1}) + text_of("folder") + "x"), EINVAL);
  expect_error(driver->call(FUSE_MKDIR, 1, bytes_of(fuse_mkdir_in{}) + "x"), EINVAL);
  expect_error(driver->call(FUSE_SYMLINK, 1, text_of("x") + "y"), EINVAL);
  // What is behind the NUL is no part of a name.
  expect_error(driver->lookup(1, std::string_view("none\0/../secret", 15)), ENOENT);
  expect_error(driver->lookup(1, std::string(256, 'n')), ENAMETOOLONG);
  expect_error(driver->lookup(1, std::string(255, 'n')), ENOENT);
}

TEST_P(Escape, LinksAreNotFollowed) {
  const std::vector<std::string> targets = {scratch.path("secret"),
                                            scratch.path("outside"),
                                            "../secret",
                                            "../outside",
                                            "/",
                                            "..",
                                            ".",
                                            "/proc/self/root",
                                            "/proc/self/cwd",
                                            "/proc/self/fd/0",
                                            "/dev/null",
                                            "folder/../../outside",
                                            "/etc/passwd"};
  for (size_t i = 0; i < targets.size(); ++i) {
    SCOPED_TRACE(targets[i]);
    // One of the host's, one of the guest's own.
    const std::string name = "link" + std::to_string(i);
    std::filesystem::create_symlink(targets[i], scratch.shared(name));
    const std::string own = "own" + std::to_string(i);
    ASSERT_TRUE(driver->symlink(1, own, targets[i]));
    for (const std::string& link : {name, own}) {
      const Answer answer = driver->lookup(1, link);
      ASSERT_TRUE(answer);
      const uint64_t node = answer.as<fuse_entry_out>().nodeid;
      EXPECT_TRUE(S_ISLNK(answer.as<fuse_entry_out>().attr.mode));
      expect_error(driver->open(node, O_RDONLY), ELOOP);
      expect_error(driver->opendir(node), ENOTDIR);
      expect_error(driver->lookup(node, "secret"), ENOTDIR);
      expect_error(driver->create(node, "new", 0644), ENOTDIR);
      expect_error(driver->mkdir(node, "new"), ENOTDIR);
      expect_error(driver->call(FUSE_UNLINK, node, text_of("secret")), ENOTDIR);
      expect_error(driver->rename(node, "secret", 1, "mine"), ENOTDIR);
      expect_error(driver->rename(1, "folder", node, "theirs"), ENOTDIR);
      expect_error(driver->link(driver->walk("folder/file"), node, "x"), ENOTDIR);
      EXPECT_NE(driver->setattr(node, {.valid = FATTR_SIZE, .size = 0}).error, 0);
      EXPECT_FALSE(driver->setxattr(node, "user.x", "y"));
      EXPECT_FALSE(driver->call(FUSE_SYNCFS, node, bytes_of(fuse_syncfs_in{})));
      // Of the link, or not at all.
      driver->chmod(node, 0777);
      driver->chown(node, 12, 34);
      driver->setattr(node, {.valid = FATTR_MTIME, .mtime = 1});
      expect_error(driver->create(1, link, 0644, O_RDWR | O_CREAT), ELOOP);
      expect_error(driver->create(1, link, 0644, O_RDWR | O_CREAT | O_TRUNC), ELOOP);
      ASSERT_TRUE(driver->link(node, 1, "again"));
      EXPECT_TRUE(S_ISLNK(driver->attributes(driver->node(1, "again")).mode));
      EXPECT_TRUE(driver->call(FUSE_UNLINK, 1, text_of("again")));
    }
  }
}

TEST_P(Escape, NumbersThatWereNotGiven) {
  for (const uint64_t node :
       {uint64_t{0}, uint64_t{2}, uint64_t{3}, uint64_t{1} << 20, (uint64_t{1} << 20) + 1,
        (uint64_t{1} << 32) + 1, UINT64_MAX, UINT64_MAX - 1, uint64_t{1} << 63}) {
    SCOPED_TRACE(node);
    expect_error(driver->lookup(node, "secret"), ESTALE);
    expect_error(driver->open(node, O_RDONLY), ESTALE);
    expect_error(driver->opendir(node), ESTALE);
    expect_error(driver->call(FUSE_GETATTR, node, bytes_of(fuse_getattr_in{})), ESTALE);
    expect_error(driver->link(node, 1, "x"), ESTALE);
    expect_error(driver->rename(1, "folder", node, "x"), ESTALE);
    driver->forget(node, UINT64_MAX);
  }
}

TEST_P(Escape, SpecialFilesAreNeverOpened) {
  ::mkfifo(scratch.shared("fifo").c_str(), 0666);
  const bool devices = ::mknod(scratch.shared("null").c_str(), S_IFCHR | 0666, ::makedev(1, 3)) == 0 &&
                       ::mknod(scratch.shared("disk").c_str(), S_IFBLK | 0666, ::makedev(1, 0)) == 0;
  for (const char* name : {"fifo", "null", "disk"}) {
    if (!devices && name[0] != 'f') continue;
    const uint64_t node = driver->node(1, name);
    ASSERT_NE(node, 0u) << name;
    for (const uint32_t flags : {O_RDONLY, O_WRONLY, O_RDWR, O_RDONLY | O_NONBLOCK, O_WRONLY | O_TRUNC})
      expect_error(driver->open(node, flags), ENXIO);
    expect_error(driver->create(1, name, 0644, O_RDWR | O_CREAT), ENXIO);
    EXPECT_NE(driver->setattr(node, {.valid = FATTR_SIZE, .size = 0}).error, 0);
    EXPECT_FALSE(driver->setxattr(node, "user.x", "y"));
    EXPECT_FALSE(driver->getxattr(node, "user.x", 100));
    EXPECT_FALSE(driver->call(FUSE_SYNCFS, node, bytes_of(fuse_syncfs_in{})));
  }
}

TEST_P(Escape, DeviceNodesAreNoneOnTheHost) {
  for (const uint32_t mode : {S_IFCHR | 0666u, S_IFBLK | 0660u}) {
    const Answer made = driver->mknod(1, "device", mode, 0x103);
    if (made.error == EPERM) GTEST_SKIP() << "no user attributes here";
    ASSERT_TRUE(made) << made.error;
    EXPECT_EQ(made.as<fuse_entry_out>().attr.mode, mode);
    EXPECT_EQ(made.as<fuse_entry_out>().attr.rdev, 0x103u);
    struct stat status {};
    ASSERT_EQ(::lstat(scratch.shared("device").c_str(), &status), 0);
    EXPECT_TRUE(S_ISREG(status.st_mode));
    EXPECT_EQ(status.st_size, 0);
    expect_error(driver->open(made.as<fuse_entry_out>().nodeid, O_RDWR), ENXIO);
    EXPECT_TRUE(driver->call(FUSE_UNLINK, 1, text_of("device")));
  }
}

TEST_P(Escape, TheFolderAboveTheRootIsTheRoot) {
  const uint64_t root = driver->attributes(1).ino;
  const uint64_t handle = driver->opendir(1).as<fuse_open_out>().fh;
  for (const bool plus : {false, true}) {
    for (const Listed& one : driver->list(1, handle, plus)) {
      if (one.name != "." && one.name != "..") continue;
      EXPECT_EQ(one.number, root) << one.name;
      EXPECT_EQ(one.entry.nodeid, 0u) << "no lookup of dots";
    }
  }
}

TEST_P(Escape, AFolderThatIsMovedOutTakesNothingAlong) {
  const uint64_t folder = driver->node(1, "folder");
  const uint64_t inner = driver->node(folder, "inner");
  std::filesystem::rename(scratch.shared("folder"), scratch.shared("../outside/moved"));
  // What it has open of it stays what it is; there is no way up.
  expect_error(driver->lookup(inner, ".."), EINVAL);
  expect_error(driver->lookup(folder, "../secret"), EINVAL);
  expect_no_way(folder);
  expect_no_way(inner);
  std::filesystem::rename(scratch.path("outside/moved"), scratch.shared("folder"));
}

TEST_P(Escape, MountPointsAreNotCrossed) {
  // In a mount namespace of its own; the thread of this child is the server.
  const pid_t child = ::fork();
  if (child == 0) {
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
      ::_exit(77);
    std::filesystem::create_directory(scratch.shared("mounted"));
    std::filesystem::create_directory(scratch.shared("bound"));
    Scratch::write(scratch.shared("bound_file"), "");
    if (::mount("tmpfs", scratch.shared("mounted").c_str(), "tmpfs", 0, "size=64k") != 0) ::_exit(77);
    const auto bind = [&](const char* from, const char* to) {
      return ::mount(scratch.path(from).c_str(), scratch.shared(to).c_str(), nullptr, MS_BIND, nullptr) == 0;
    };
    if (!bind("outside", "bound") || !bind("secret", "bound_file")) ::_exit(77);
    Scratch::write(scratch.shared("mounted/secret"), kSecret);
    begin({});
    bool good = true;
    for (const char* name : {"mounted", "bound", "bound_file"})
      good = good && driver->lookup(1, name).error == EXDEV;
    const uint64_t handle = driver->opendir(1).as<fuse_open_out>().fh;
    for (const Listed& one : driver->list(1, handle, true))
      if (one.name.starts_with("mounted") || one.name.starts_with("bound"))
        good = good && one.entry.nodeid == 0;
    // Names of mount points are the host's.
    good = good && driver->call(FUSE_RMDIR, 1, text_of("mounted")).error == EBUSY;
    good = good && driver->rename(1, "bound", 1, "free").error == EBUSY;
    begin({.submounts = true});
    const auto mounted = driver->lookup(1, "mounted").as<fuse_entry_out>();
    const auto bound = driver->lookup(1, "bound").as<fuse_entry_out>();
    good = good && (mounted.attr.flags & FUSE_ATTR_SUBMOUNT) != 0 &&
           (bound.attr.flags & FUSE_ATTR_SUBMOUNT) != 0;
    good = good && driver->content(driver->node(mounted.nodeid, "secret")) == kSecret;
    good =
        good && (driver->attributes(driver->node(mounted.nodeid, "secret")).flags & FUSE_ATTR_SUBMOUNT) == 0;
    good = good && driver->call(FUSE_SYNCFS, mounted.nodeid, bytes_of(fuse_syncfs_in{}));
    // Without the guest's help numbers must not meet.
    begin({.submounts = true}, 0);
    good = good && driver->attributes(driver->node(1, "mounted")).flags == 0;
    good = good && driver->attributes(driver->walk("mounted/secret")).ino != driver->attributes(1).ino;
    ::_exit(good ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "mounting is not allowed here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

SNUG_BOTH_RESOLVERS(Escape);

}  // namespace
}  // namespace snug::test
