// Extended attributes, and which of them are whose.
#include <fcntl.h>
#include <sys/xattr.h>

#include <filesystem>

#include "tests/unit/shares/fixture.h"
#include "vmm/shares/xattr_names.h"

namespace snug::test {
namespace {

TEST(XattrNames, AreMapped) {
  EXPECT_EQ(xattr_on_host("user.x").value(), "user.x");
  EXPECT_EQ(xattr_on_host("user.snugly").value(), "user.snugly");
  EXPECT_EQ(xattr_on_host("security.selinux").value(), "user.snug.x.security.selinux");
  EXPECT_EQ(xattr_on_host("trusted.overlay.opaque").value(), "user.snug.x.trusted.overlay.opaque");
  EXPECT_EQ(xattr_on_host("user.snug.stat").error(), ENODATA);
  EXPECT_EQ(xattr_on_host("user.snug.x.trusted.y").error(), ENODATA);
  EXPECT_EQ(xattr_on_host("user.snug.").error(), ENODATA);
  for (const char* name : {"system.posix_acl_access", "system.x", "os2.x", "x", "securityx", "USER.x"})
    EXPECT_EQ(xattr_on_host(name).error(), EOPNOTSUPP) << name;
  for (const char* name : {"user.", "security.", "trusted."})
    EXPECT_EQ(xattr_on_host(name).error(), EINVAL) << name;
  EXPECT_EQ(xattr_on_host("").error(), ERANGE);
  EXPECT_EQ(xattr_on_host("user." + std::string(251, 'x')).error(), ERANGE);
  EXPECT_TRUE(xattr_on_host("user." + std::string(250, 'x')));
  EXPECT_EQ(xattr_on_host("trusted." + std::string(240, 'x')).error(), ERANGE);
  EXPECT_EQ(xattr_in_guest("user.x").value(), "user.x");
  EXPECT_EQ(xattr_in_guest("user.snug.x.security.y").value(), "security.y");
  for (const char* name : {"user.snug.stat", "user.snug.x.", "user.snug.x.user.y", "user.snug.other",
                           "security.selinux", "trusted.x", "system.posix_acl_access"})
    EXPECT_FALSE(xattr_in_guest(name)) << name;
}

class Xattrs : public Shared {
 protected:
  void SetUp() override {
    node = made("file").first;
    if (driver->setxattr(node, "user.probe", "x").error == EOPNOTSUPP)
      GTEST_SKIP() << "no user attributes here";
    driver->call(FUSE_REMOVEXATTR, node, text_of("user.probe"));
  }
  std::string get(std::string_view name) { return driver->getxattr(node, name, 1000).payload; }
  std::string list() {
    return driver->call(FUSE_LISTXATTR, node, bytes_of(fuse_getxattr_in{.size = 1000}), 1000).payload;
  }
  uint64_t node = 0;
};

TEST_P(Xattrs, AreKept) {
  EXPECT_TRUE(driver->setxattr(node, "user.colour", "green"));
  EXPECT_EQ(get("user.colour"), "green");
  EXPECT_EQ(driver->getxattr(node, "user.colour", 0).as<fuse_getxattr_out>().size, 5u);
  expect_error(driver->getxattr(node, "user.colour", 4), ERANGE);
  EXPECT_EQ(driver->getxattr(node, "user.colour", 5).payload, "green");
  expect_error(driver->setxattr(node, "user.colour", "red", XATTR_CREATE), EEXIST);
  expect_error(driver->setxattr(node, "user.none", "red", XATTR_REPLACE), ENODATA);
  expect_error(driver->setxattr(node, "user.none", "red", 77), EINVAL);
  EXPECT_TRUE(driver->setxattr(node, "user.empty", ""));
  EXPECT_EQ(driver->getxattr(node, "user.empty", 0).as<fuse_getxattr_out>().size, 0u);
  EXPECT_TRUE(driver->call(FUSE_REMOVEXATTR, node, text_of("user.colour")));
  expect_error(driver->call(FUSE_REMOVEXATTR, node, text_of("user.colour")), ENODATA);
  expect_error(driver->getxattr(node, "user.colour", 100), ENODATA);
  EXPECT_TRUE(driver->setxattr(1, "user.of.the.root", "x")) << "folders have them too";
}

TEST_P(Xattrs, OfTheGuestsKernelAreTheHostUsers) {
  EXPECT_TRUE(driver->setxattr(node, "security.selinux", "label"));
  EXPECT_TRUE(driver->setxattr(node, "trusted.overlay.opaque", "y"));
  EXPECT_TRUE(driver->setxattr(node, "user.own", "z"));
  EXPECT_EQ(get("security.selinux"), "label");
  char value[10];
  EXPECT_EQ(::getxattr(scratch.shared("file").c_str(), "user.snug.x.security.selinux", value, sizeof value),
            5);
  EXPECT_EQ(
      ::getxattr(scratch.shared("file").c_str(), "user.snug.x.trusted.overlay.opaque", value, sizeof value),
      1);
  EXPECT_EQ(list().size(), std::string_view("security.selinux.trusted.overlay.opaque.user.own.").size());
  driver->uid = 1000;
  EXPECT_EQ(list().find("trusted"), std::string::npos);
  EXPECT_NE(list().find("security.selinux"), std::string::npos);
  driver->uid = 0;
  EXPECT_TRUE(driver->call(FUSE_REMOVEXATTR, node, text_of("trusted.overlay.opaque")));
}

TEST_P(Xattrs, OursAreNotTheGuests) {
  driver->chmod(node, 04755);
  driver->chown(node, 1, 2);
  driver->chmod(node, 04755);
  for (const char* name : {"user.snug.stat", "user.snug.x.security.selinux", "user.snug.anything"}) {
    expect_error(driver->getxattr(node, name, 100), ENODATA);
    expect_error(driver->getxattr(node, name, 0), ENODATA);
    expect_error(driver->setxattr(node, name, "0:0:104777"), EPERM);
    expect_error(driver->call(FUSE_REMOVEXATTR, node, text_of(name)), EPERM);
  }
  EXPECT_EQ(list(), "");
  EXPECT_EQ(driver->attributes(node).mode, S_IFREG | 04755u);
}

TEST_P(Xattrs, OfTheHostsOwnAreNotSeen) {
  const std::string path = scratch.shared("file");
  const bool trusted = ::setxattr(path.c_str(), "trusted.host", "x", 1, 0) == 0;
  const bool security = ::setxattr(path.c_str(), "security.host", "x", 1, 0) == 0;
  if (!trusted && !security) GTEST_SKIP() << "only root has those";
  EXPECT_EQ(list(), "");
  expect_error(driver->getxattr(node, "trusted.host", 100), ENODATA);
  expect_error(driver->getxattr(node, "security.host", 100), ENODATA);
}

TEST_P(Xattrs, WhereThereAreNone) {
  for (const char* name : {"system.posix_acl", "system.x", "other.x"}) {
    expect_error(driver->getxattr(node, name, 100), EOPNOTSUPP);
    expect_error(driver->setxattr(node, name, "x"), EOPNOTSUPP);
  }
  driver->symlink(1, "link", "file");
  driver->mknod(1, "fifo", S_IFIFO | 0600);
  for (const char* name : {"link", "fifo"}) {
    const uint64_t other = driver->node(1, name);
    expect_error(driver->setxattr(other, "user.x", "y"), EOPNOTSUPP);
    expect_error(driver->setxattr(other, "security.x", "y"), EOPNOTSUPP);
    expect_error(driver->getxattr(other, "user.x", 100), EOPNOTSUPP);
    const Answer none = driver->call(FUSE_LISTXATTR, other, bytes_of(fuse_getxattr_in{.size = 100}));
    EXPECT_TRUE(none && none.payload.empty()) << none.error;
  }
  EXPECT_EQ(list(), "") << "of the file that the link leads to";
}

TEST_P(Xattrs, SizesThatLie) {
  fuse_setxattr_in in{.size = 100};
  expect_error(driver->call(FUSE_SETXATTR, node, bytes_of(in) + text_of("user.x") + "ten bytes."), EINVAL);
  in.size = UINT32_MAX;
  expect_error(driver->call(FUSE_SETXATTR, node, bytes_of(in) + text_of("user.x") + "ten bytes."), EINVAL);
  expect_error(driver->call(FUSE_SETXATTR, node, bytes_of(in) + "user.x"), EINVAL);
  EXPECT_TRUE(driver->setxattr(node, "user.x", std::string(2000, 'v')));
  expect_error(driver->call(FUSE_GETXATTR, node,
                            bytes_of(fuse_getxattr_in{.size = UINT32_MAX}) + text_of("user.x"), 100),
               ERANGE);
  EXPECT_EQ(driver->getxattr(node, "user.x", 1 << 20).payload, std::string(2000, 'v'));
  EXPECT_FALSE(driver->setxattr(node, "user.big", std::string(66'000, 'x')));
  expect_error(driver->setxattr(node, "user." + std::string(251, 'x'), "y"), ERANGE);
}

TEST_P(Xattrs, OfGuestsWithTheShortRequest) {
  begin({}, 0);
  node = driver->node(1, "file");
  struct {
    uint32_t size = 3, flags = 0;
  } const in;
  EXPECT_TRUE(driver->call(FUSE_SETXATTR, node, bytes_of(in) + text_of("user.x") + "abc"));
  EXPECT_EQ(get("user.x"), "abc");
}

SNUG_BOTH_RESOLVERS(Xattrs);

}  // namespace
}  // namespace snug::test
