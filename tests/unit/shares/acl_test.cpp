// Access control lists: their form, where they are kept, and what becomes of them.
#include <sys/xattr.h>

#include "tests/unit/shares/fixture.h"
#include "vmm/shares/posix_acl.h"

namespace snug::test {
namespace {

struct Entry {
  uint16_t tag, rights;
  uint32_t id = ~uint32_t{0};
};
constexpr uint16_t kUserObj = 1, kUser = 2, kGroupObj = 4, kGroup = 8, kMask = 16, kOther = 32;

std::string list_of(std::vector<Entry> entries, uint32_t version = 2) {
  std::string all = bytes_of(version);
  for (const Entry& entry : entries) all += bytes_of(entry);
  return all;
}
// A user with a name, beside rw-r--r--.
std::string with_user(uint32_t user, uint16_t rights, uint16_t mask = 7) {
  return list_of({{kUserObj, 6}, {kUser, rights, user}, {kGroupObj, 4}, {kMask, mask}, {kOther, 4}});
}
Outcome<PosixAcl> parsed(const std::string& bytes) {
  return PosixAcl::parse(std::as_bytes(std::span(bytes)));
}

TEST(PosixAcl, IsAsLinuxHasIt) {
  const std::string bytes = list_of({{kUserObj, 7},
                                     {kUser, 6, 1000},
                                     {kUser, 4, 1001},
                                     {kGroupObj, 5},
                                     {kGroup, 1, 50},
                                     {kMask, 6},
                                     {kOther, 1}});
  auto acl = parsed(bytes);
  ASSERT_TRUE(acl);
  EXPECT_EQ(acl->bytes(), bytes);
  EXPECT_EQ(acl->mode(), 0761u);
  EXPECT_EQ(acl->group_rights(), 5u);
  EXPECT_TRUE(acl->is_more_than_mode());
  acl->set_mode(S_IFREG | 04635);
  EXPECT_EQ(acl->mode(), 0635u);
  EXPECT_EQ(acl->group_rights(), 5u) << "chmod is about the mask";
  uint32_t mode = S_IFDIR | 01752;
  acl->inherit(mode);
  EXPECT_EQ(mode, S_IFDIR | 01610u);
  EXPECT_EQ(acl->mode(), 0610u);
  const auto few = parsed(list_of({{kUserObj, 6}, {kGroupObj, 4}, {kOther, 0}}));
  ASSERT_TRUE(few);
  EXPECT_FALSE(few->is_more_than_mode());
  EXPECT_EQ(few->mode(), 0640u);
}

TEST(PosixAcl, WhatIsNone) {
  const std::string good = with_user(1000, 7);
  ASSERT_TRUE(parsed(good));
  for (size_t size = 0; size < good.size(); ++size)
    EXPECT_FALSE(parsed(good.substr(0, size))) << size << " of its bytes";
  EXPECT_EQ(parsed(good + "x").error(), EINVAL);
  EXPECT_EQ(parsed(list_of({{kUserObj, 6}, {kGroupObj, 4}, {kOther, 0}}, 1)).error(), EOPNOTSUPP);
  EXPECT_EQ(parsed(list_of({{kUserObj, 6}, {kGroupObj, 4}, {kOther, 0}}, 0)).error(), EOPNOTSUPP);
  std::vector<Entry> many{{kUserObj, 6}};
  for (uint32_t i = 0; i < 600; ++i) many.push_back({kUser, 4, i});
  for (const Entry& entry : {Entry{kGroupObj, 4}, Entry{kMask, 4}, Entry{kOther, 4}}) many.push_back(entry);
  EXPECT_EQ(parsed(list_of(many)).error(), E2BIG);
  const std::vector<std::vector<Entry>> wrong = {
      {},
      {{kUserObj, 6}},
      {{kUserObj, 6}, {kGroupObj, 4}},
      {{kGroupObj, 6}, {kOther, 4}},
      {{kUserObj, 6}, {kOther, 4}, {kGroupObj, 4}},
      {{kGroupObj, 4}, {kUserObj, 6}, {kOther, 4}},
      {{kUserObj, 6}, {kUserObj, 6}, {kGroupObj, 4}, {kOther, 4}},
      {{kUserObj, 6}, {kGroupObj, 4}, {kGroupObj, 4}, {kOther, 4}},
      {{kUserObj, 6}, {kGroupObj, 4}, {kOther, 4}, {kOther, 4}},
      {{kUserObj, 6}, {kGroupObj, 4}, {kMask, 7}, {kMask, 7}, {kOther, 4}},
      {{kUserObj, 6}, {kUser, 4, 5}, {kGroupObj, 4}, {kOther, 4}},
      {{kUserObj, 6}, {kGroupObj, 4}, {kGroup, 4, 5}, {kOther, 4}},
      {{kUserObj, 6}, {kGroupObj, 4}, {kUser, 4, 5}, {kMask, 7}, {kOther, 4}},
      {{kUserObj, 6}, {kUser, 4}, {kGroupObj, 4}, {kMask, 7}, {kOther, 4}},
      {{kUserObj, 6}, {kGroupObj, 4}, {kGroup, 4}, {kMask, 7}, {kOther, 4}},
      {{kUserObj, 8}, {kGroupObj, 4}, {kOther, 4}},
      {{kUserObj, 6}, {kGroupObj, 0xffff}, {kOther, 4}},
      {{kUserObj, 6}, {3, 4}, {kGroupObj, 4}, {kOther, 4}},
      {{0, 0}, {kUserObj, 6}, {kGroupObj, 4}, {kOther, 4}},
      {{kUserObj, 6}, {kGroupObj, 4}, {kOther, 4}, {64, 4}},
      {{0xffff, 0xffff, 0}, {0xffff, 0xffff, 0}, {0xffff, 0xffff, 0}},
  };
  for (size_t i = 0; i < wrong.size(); ++i) EXPECT_EQ(parsed(list_of(wrong[i])).error(), EINVAL) << i;
  EXPECT_TRUE(
      parsed(list_of({{kUserObj, 6}, {kUser, 4, 5}, {kUser, 7, 5}, {kGroupObj, 4}, {kMask, 7}, {kOther, 4}})))
      << "the first one counts, as Linux has it";
}

class Acls : public Shared {
 protected:
  void SetUp() override {
    node = made("file").first;
    if (driver->setxattr(node, kAccessAcl, with_user(1000, 6)).error == EOPNOTSUPP)
      GTEST_SKIP() << "no access control lists or attributes here";
    EXPECT_TRUE(remove(node, kAccessAcl));
    EXPECT_TRUE(driver->chmod(node, 0644));
  }
  // Ids that are not real, whoever runs the test.
  void begin_mapped() {
    ShareOptions options;
    options.uid = 0;
    begin(options);
    node = driver->node(1, "file");
    const Answer answer = driver->setxattr(node, "user.probe", "x");
    if (answer.error == EOPNOTSUPP) GTEST_SKIP() << "no user attributes here";
  }
  Answer remove(uint64_t of, std::string_view name) {
    return driver->call(FUSE_REMOVEXATTR, of, text_of(name));
  }
  std::string get(uint64_t of, std::string_view name) { return driver->getxattr(of, name, 4096).payload; }
  std::string names(uint64_t of) {
    return driver->call(FUSE_LISTXATTR, of, bytes_of(fuse_getxattr_in{.size = 1000}), 1000).payload;
  }
  uint32_t mode_of(uint64_t of) { return driver->attributes(of).mode & 07777; }
  uint32_t mode_on_host(std::string_view name) {
    struct stat status {};
    ::lstat(scratch.shared(name).c_str(), &status);
    return status.st_mode & 07777;
  }
  Answer make(std::string_view name, uint32_t mode, uint32_t umask) {
    return driver->call(
        FUSE_CREATE, 1,
        bytes_of(fuse_create_in{.flags = 2, .mode = S_IFREG | mode, .umask = umask}) + text_of(name));
  }
  Answer make_folder(uint64_t parent, std::string_view name, uint32_t mode, uint32_t umask) {
    return driver->call(FUSE_MKDIR, parent,
                        bytes_of(fuse_mkdir_in{.mode = mode, .umask = umask}) + text_of(name));
  }

  void keeps_step_with_the_mode();
  void hands_down();
  uint64_t node = 0;
};

void Acls::keeps_step_with_the_mode() {
  EXPECT_TRUE(driver->setxattr(node, kAccessAcl, with_user(1000, 7, 5)));
  EXPECT_EQ(mode_of(node), 0654u);
  EXPECT_EQ(get(node, kAccessAcl), with_user(1000, 7, 5));
  EXPECT_EQ(driver->getxattr(node, kAccessAcl, 0).as<fuse_getxattr_out>().size, with_user(1000, 7).size());
  expect_error(driver->getxattr(node, kAccessAcl, 10), ERANGE);
  EXPECT_NE(names(node).find(text_of(kAccessAcl)), std::string::npos);
  EXPECT_TRUE(driver->chmod(node, 0624));
  EXPECT_EQ(mode_of(node), 0624u);
  EXPECT_EQ(get(node, kAccessAcl), with_user(1000, 7, 2));
  EXPECT_TRUE(driver->chmod(node, 0671));
  EXPECT_EQ(mode_of(node), 0671u);
  EXPECT_TRUE(driver->chown(node, 5, 6));
  EXPECT_EQ(mode_of(node), 0671u);
  EXPECT_EQ(get(node, kAccessAcl),
            list_of({{kUserObj, 6}, {kUser, 7, 1000}, {kGroupObj, 4}, {kMask, 7}, {kOther, 1}}));
  // What a mode can say is a mode.
  EXPECT_TRUE(driver->setxattr(node, kAccessAcl, list_of({{kUserObj, 7}, {kGroupObj, 5}, {kOther, 0}})));
  EXPECT_EQ(mode_of(node), 0750u);
  expect_error(driver->getxattr(node, kAccessAcl, 4096), ENODATA);
  EXPECT_EQ(names(node).find(text_of(kAccessAcl)), std::string::npos);
  EXPECT_TRUE(driver->setxattr(node, kAccessAcl, with_user(1000, 7)));
  EXPECT_TRUE(remove(node, kAccessAcl));
  EXPECT_TRUE(remove(node, kAccessAcl)) << "that there is none is what is wanted";
  EXPECT_EQ(mode_of(node), 0674u);
  expect_error(driver->getxattr(node, kAccessAcl, 4096), ENODATA);
  expect_error(driver->setxattr(node, kDefaultAcl, with_user(1000, 7)), EACCES);
}

TEST_P(Acls, KeepStepWithTheMode) { keeps_step_with_the_mode(); }
TEST_P(Acls, KeepStepWithTheModeWhereIdsAreNotReal) {
  begin_mapped();
  if (!IsSkipped()) keeps_step_with_the_mode();
}

void Acls::hands_down() {
  const std::string list =
      list_of({{kUserObj, 7}, {kUser, 7, 1000}, {kGroupObj, 5}, {kMask, 7}, {kOther, 5}});
  EXPECT_TRUE(driver->setxattr(1, kDefaultAcl, list));
  EXPECT_EQ(get(1, kDefaultAcl), list);
  expect_error(driver->getxattr(1, kAccessAcl, 4096), ENODATA);
  const Answer file = make("made", 0664, 0027);
  ASSERT_TRUE(file);
  EXPECT_EQ(file.as<fuse_entry_out>().attr.mode, S_IFREG | 0664u) << "the umask does not count";
  const uint64_t made_node = file.as<fuse_entry_out>().nodeid;
  EXPECT_EQ(mode_of(made_node), 0664u);
  EXPECT_EQ(get(made_node, kAccessAcl),
            list_of({{kUserObj, 6}, {kUser, 7, 1000}, {kGroupObj, 5}, {kMask, 6}, {kOther, 4}}));
  const Answer folder = make_folder(1, "folder", 0770, 0027);
  ASSERT_TRUE(folder);
  const uint64_t folder_node = folder.as<fuse_entry_out>().nodeid;
  EXPECT_EQ(mode_of(folder_node), 0770u);
  EXPECT_EQ(get(folder_node, kDefaultAcl), list);
  EXPECT_EQ(get(folder_node, kAccessAcl),
            list_of({{kUserObj, 7}, {kUser, 7, 1000}, {kGroupObj, 5}, {kMask, 7}, {kOther, 0}}));
  const Answer deeper = make_folder(folder_node, "deeper", 0700, 0);
  EXPECT_EQ(get(deeper.as<fuse_entry_out>().nodeid, kDefaultAcl), list);
  // What has no list has its rights by the mode.
  const Answer fifo = driver->mknod(1, "fifo", S_IFIFO | 0666);
  ASSERT_TRUE(fifo);
  EXPECT_EQ(mode_of(fifo.as<fuse_entry_out>().nodeid), 0644u);
  expect_error(driver->getxattr(fifo.as<fuse_entry_out>().nodeid, kAccessAcl, 4096), ENODATA);
  expect_error(driver->setxattr(fifo.as<fuse_entry_out>().nodeid, kAccessAcl, list), EOPNOTSUPP);
  EXPECT_TRUE(driver->symlink(1, "link", "file"));
  expect_error(driver->getxattr(driver->node(1, "link"), kAccessAcl, 4096), ENODATA);
  const Answer device = driver->mknod(1, "device", S_IFCHR | 0660, 0x103);
  if (device) {
    const uint64_t device_node = device.as<fuse_entry_out>().nodeid;
    EXPECT_EQ(mode_of(device_node), 0640u);
    expect_error(driver->getxattr(device_node, kAccessAcl, 4096), ENODATA);
    expect_error(driver->setxattr(device_node, kAccessAcl, list), EOPNOTSUPP);
  }
  EXPECT_TRUE(remove(1, kDefaultAcl));
  EXPECT_EQ(make("masked", 0666, 0027).as<fuse_entry_out>().attr.mode, S_IFREG | 0640u);
  EXPECT_EQ(make_folder(1, "masked folder", 0777, 0027).as<fuse_entry_out>().attr.mode, S_IFDIR | 0750u);
}

TEST_P(Acls, OfFoldersAreHandedDown) { hands_down(); }
TEST_P(Acls, OfFoldersAreHandedDownWhereIdsAreNotReal) {
  begin_mapped();
  if (!IsSkipped()) hands_down();
}

TEST_P(Acls, ThatAreNotedGiveTheHostsGroupNoMoreThanItsOwn) {
  begin_mapped();
  if (IsSkipped()) return;
  EXPECT_TRUE(driver->setxattr(node, kAccessAcl, with_user(1000, 7, 7)));
  EXPECT_EQ(mode_of(node), 0674u);
  EXPECT_EQ(mode_on_host("file"), 0644u);
  EXPECT_LT(::getxattr(scratch.shared("file").c_str(), std::string(kAccessAcl).c_str(), nullptr, 0), 0);
  EXPECT_TRUE(driver->chmod(node, 0600));
  EXPECT_EQ(mode_on_host("file"), 0600u);
  EXPECT_TRUE(driver->chmod(node, 0670));
  EXPECT_EQ(mode_on_host("file"), 0640u);
  EXPECT_TRUE(remove(node, kAccessAcl));
  EXPECT_EQ(mode_on_host("file"), 0670u);
  for (const char* name : {"user.snug.x.system.posix_acl_access", "user.snug.x.system.posix_acl_default"})
    expect_error(driver->setxattr(node, name, with_user(1000, 7)), EPERM);
  // Another session, another guest: it is there.
  EXPECT_TRUE(driver->setxattr(node, kAccessAcl, with_user(1000, 7, 7)));
  begin_mapped();
  EXPECT_EQ(mode_of(node), 0674u);
  EXPECT_EQ(get(node, kAccessAcl),
            list_of({{kUserObj, 6}, {kUser, 7, 1000}, {kGroupObj, 4}, {kMask, 7}, {kOther, 4}}));
}

TEST_P(Acls, ThatAreNoneAreRefused) {
  for (const char* name : {"system.posix_acl_access", "system.posix_acl_default"}) {
    expect_error(driver->setxattr(1, name, "nonsense"), EOPNOTSUPP);
    expect_error(driver->setxattr(1, name, ""), EINVAL);
    expect_error(driver->setxattr(1, name, with_user(1000, 9)), EINVAL);
    expect_error(driver->setxattr(1, name, list_of({})), EINVAL);
    expect_error(driver->setxattr(1, name, with_user(~uint32_t{0}, 7)), EINVAL);
    expect_error(driver->setxattr(1, name, with_user(1000, 7) + "1234567"), EINVAL);
    expect_error(driver->getxattr(1, name, 4096), ENODATA);
  }
  // In another's place, on a host whose attributes others have written.
  begin_mapped();
  if (IsSkipped()) return;
  const std::string path = scratch.shared("file");
  ASSERT_EQ(::setxattr(path.c_str(), "user.snug.x.system.posix_acl_access", "junk", 4, 0), 0);
  expect_error(driver->getxattr(node, kAccessAcl, 4096), ENODATA);
  ASSERT_EQ(::setxattr(path.c_str(), "user.snug.stat", "0:0:100674:g9", 13, 0), 0);
  EXPECT_EQ(mode_of(node), 0644u);
  ASSERT_EQ(::setxattr(path.c_str(), "user.snug.stat", "0:0:100674:g4", 13, 0), 0);
  expect_error(driver->getxattr(node, kAccessAcl, 4096), ENODATA);
  EXPECT_TRUE(driver->setxattr(node, kAccessAcl, with_user(1000, 7)));
  EXPECT_EQ(get(node, kAccessAcl), with_user(1000, 7));
}

TEST_P(Acls, EndSetgid) {
  EXPECT_TRUE(driver->chmod(node, 02755));
  EXPECT_TRUE(driver->setxattr(node, kAccessAcl, with_user(1000, 7)));
  EXPECT_EQ(mode_of(node), 02674u);
  fuse_setxattr_in in{};
  const std::string value = with_user(1000, 6);
  in.size = static_cast<uint32_t>(value.size());
  in.setxattr_flags = FUSE_SETXATTR_ACL_KILL_SGID;
  EXPECT_TRUE(driver->call(FUSE_SETXATTR, node, bytes_of(in) + text_of(kAccessAcl) + value));
  EXPECT_EQ(mode_of(node), 0674u);
}

TEST_P(Acls, WithAGuestThatKnowsNone) {
  EXPECT_TRUE(driver->setxattr(1, kDefaultAcl, with_user(1000, 7)));
  begin({}, ~uint64_t{FUSE_POSIX_ACL});
  for (const std::string_view name : {kAccessAcl, kDefaultAcl}) {
    expect_error(driver->getxattr(1, name, 4096), EOPNOTSUPP);
    expect_error(driver->setxattr(1, name, with_user(1000, 7)), EOPNOTSUPP);
    expect_error(remove(1, name), EOPNOTSUPP);
  }
  EXPECT_EQ(names(1), "");
}

SNUG_BOTH_RESOLVERS(Acls);

}  // namespace
}  // namespace snug::test
