// Whose files are: served by an ordinary user, with and without a user namespace, and by root.
#include "vmm/shares/owner.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <functional>

#include "tests/unit/shares/driver.h"

namespace snug::test {
namespace {

constexpr uid_t kUser = 12'345;
constexpr gid_t kGroup = 23'456;

bool write_file(const char* path, const std::string& text) {
  const UniqueFd file(::open(path, O_WRONLY | O_CLOEXEC));
  return ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// As a server's jail does: nobody but the user exists, who may do with the user's files as root does with
// all.
bool enter_namespace() {
  if (::unshare(CLONE_NEWUSER) != 0) return false;
  const auto map = [](unsigned id) { return std::to_string(id) + " " + std::to_string(id) + " 1"; };
  if (!write_file("/proc/self/setgroups", "deny") || !write_file("/proc/self/uid_map", map(kUser)) ||
      !write_file("/proc/self/gid_map", map(kGroup)))
    return false;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const uint32_t kept = 1u << CAP_DAC_OVERRIDE | 1u << CAP_FOWNER;
  const __user_cap_data_struct sets[2] = {{kept, kept, 0}, {}};
  return ::syscall(SYS_capset, &header, sets) == 0;
}

enum class As { kRoot, kPlainUser, kUserWithNamespace };

// A share of its own, served in a child that has become somebody else. A child's failures are this test's.
class Owner : public ::testing::TestWithParam<As> {
 protected:
  void serve(ShareOptions options, const std::function<void(Driver&)>& work) {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can become others";
    if (GetParam() != As::kRoot) {
      EXPECT_EQ(::chown(scratch_.path().c_str(), kUser, kGroup), 0);
      EXPECT_EQ(::chown(scratch_.shared().c_str(), kUser, kGroup), 0);
    }
    const pid_t child = ::fork();
    if (child == 0) {
      ::umask(0);
      if (GetParam() != As::kRoot &&
          (::setgroups(0, nullptr) != 0 || ::setresgid(kGroup, kGroup, kGroup) != 0 ||
           ::setresuid(kUser, kUser, kUser) != 0 || ::prctl(PR_SET_DUMPABLE, 1) != 0))
        ::_exit(77);
      if (GetParam() == As::kUserWithNamespace && !enter_namespace()) ::_exit(77);
      options.real_ids = GetParam() == As::kRoot;
      const auto session = share(scratch_.shared(), std::move(options));
      Driver driver(*session);
      EXPECT_TRUE(driver.init());
      work(driver);
      std::fflush(stdout);
      ::_exit(HasFailure() ? 1 : 0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status)) << WTERMSIG(status);
    if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "no user namespaces here";
    EXPECT_EQ(WEXITSTATUS(status), 0) << "see above";
  }
  struct stat on_host(const char* name) const {
    struct stat status {};
    EXPECT_EQ(::lstat(scratch_.shared(name).c_str(), &status), 0) << name;
    return status;
  }
  std::string override_of(const char* name) const {
    char text[100];
    const ssize_t length = ::lgetxattr(scratch_.shared(name).c_str(), kOverrideName, text, sizeof text);
    return length < 0 ? "" : std::string(text, static_cast<size_t>(length));
  }
  static void expect_look(const fuse_attr& attr, uint32_t uid, uint32_t gid, uint32_t mode) {
    EXPECT_EQ(attr.uid, uid);
    EXPECT_EQ(attr.gid, gid);
    EXPECT_EQ(attr.mode, mode) << std::oct << attr.mode << " " << mode;
  }
  bool real() const { return GetParam() == As::kRoot; }

  Scratch scratch_;
};

TEST_P(Owner, OfWhatGuestsRootMakes) {
  serve({}, [this](Driver& guest) {
    expect_look(guest.create(1, "file", 0640).as<fuse_entry_out>().attr, 0, 0, S_IFREG | 0640);
    expect_look(guest.mkdir(1, "folder", 0700).as<fuse_entry_out>().attr, 0, 0, S_IFDIR | 0700);
    expect_look(guest.symlink(1, "link", "x").as<fuse_entry_out>().attr, 0, 0, S_IFLNK | 0777);
    expect_look(guest.mknod(1, "fifo", S_IFIFO | 0600).as<fuse_entry_out>().attr, 0, 0, S_IFIFO | 0600);
    for (const char* name : {"file", "folder", "link", "fifo"}) {
      EXPECT_EQ(on_host(name).st_uid, ::geteuid()) << name;
      EXPECT_EQ(on_host(name).st_gid, ::getegid()) << name;
      EXPECT_EQ(override_of(name), "") << name;
    }
  });
}

TEST_P(Owner, OfWhatGuestsUsersMake) {
  serve({}, [this](Driver& guest) {
    guest.uid = 1000;
    guest.gid = 1001;
    expect_look(guest.create(1, "file", 0640).as<fuse_entry_out>().attr, 1000, 1001, S_IFREG | 0640);
    expect_look(guest.mkdir(1, "folder", 0700).as<fuse_entry_out>().attr, 1000, 1001, S_IFDIR | 0700);
    EXPECT_EQ(on_host("file").st_uid, real() ? 1000 : ::geteuid());
    EXPECT_EQ(on_host("folder").st_gid, real() ? 1001 : ::getegid());
    EXPECT_EQ(override_of("file"), real() ? "" : "1000:1001:100640");
    EXPECT_EQ(override_of("folder"), real() ? "" : "1000:1001:40700");
    // Those keep nothing but what the host has.
    const auto link = guest.symlink(1, "link", "x").as<fuse_entry_out>().attr;
    const auto fifo = guest.mknod(1, "fifo", S_IFIFO | 0600).as<fuse_entry_out>().attr;
    for (const fuse_attr& attr : {link, fifo}) {
      EXPECT_EQ(attr.uid, real() ? 1000u : 0u);
      EXPECT_EQ(attr.gid, real() ? 1001u : 0u);
    }
    // Told anew, it is the same.
    expect_look(guest.attributes(guest.node(1, "file")), 1000, 1001, S_IFREG | 0640);
  });
}

TEST_P(Owner, IsGivenAway) {
  serve({}, [this](Driver& guest) {
    const uint64_t file = guest.create(1, "file", 0644).as<fuse_entry_out>().nodeid;
    const uint64_t folder = guest.mkdir(1, "folder", 0755).as<fuse_entry_out>().nodeid;
    expect_look(guest.chown(file, 7, 8).as<fuse_attr_out>().attr, 7, 8, S_IFREG | 0644);
    expect_look(guest.chown(folder, 7, 8).as<fuse_attr_out>().attr, 7, 8, S_IFDIR | 0755);
    EXPECT_EQ(on_host("file").st_uid, real() ? 7 : ::geteuid());
    EXPECT_EQ(override_of("file"), real() ? "" : "7:8:100644");
    expect_look(guest.chmod(file, 0600).as<fuse_attr_out>().attr, 7, 8, S_IFREG | 0600);
    EXPECT_EQ(on_host("file").st_mode, S_IFREG | 0600u);
    const fuse_setattr_in group{.valid = FATTR_GID, .gid = 9};
    expect_look(guest.setattr(file, group).as<fuse_attr_out>().attr, 7, 9, S_IFREG | 0600);
    expect_look(guest.chown(file, 0, 0).as<fuse_attr_out>().attr, 0, 0, S_IFREG | 0600);
    EXPECT_EQ(override_of("file"), "") << "what is plain needs no word";
    EXPECT_EQ(on_host("file").st_uid, ::geteuid());

    const uint64_t link = guest.symlink(1, "link", "x").as<fuse_entry_out>().nodeid;
    const uint64_t fifo = guest.mknod(1, "fifo", S_IFIFO | 0600).as<fuse_entry_out>().nodeid;
    for (const uint64_t node : {link, fifo}) {
      const Answer answer = guest.chown(node, 7, 8);
      EXPECT_EQ(answer.error, real() ? 0 : EPERM);
      EXPECT_TRUE(guest.chown(node, real() ? 7 : 0, real() ? 8 : 0)) << "to whom it belongs already";
    }
  });
}

TEST_P(Owner, SetuidBitsAreNeverOnTheHost) {
  serve({}, [this](Driver& guest) {
    const Answer made = guest.create(1, "tool", 04755);
    const uint64_t file = made.as<fuse_entry_out>().nodeid;
    expect_look(made.as<fuse_entry_out>().attr, 0, 0, S_IFREG | 04755);
    EXPECT_EQ(on_host("tool").st_mode, S_IFREG | 0755u);
    expect_look(guest.chmod(file, 06711).as<fuse_attr_out>().attr, 0, 0, S_IFREG | 06711);
    EXPECT_EQ(on_host("tool").st_mode, S_IFREG | 0711u);
    EXPECT_EQ(override_of("tool"), "0:0:106711");
    expect_look(guest.chmod(file, 0711).as<fuse_attr_out>().attr, 0, 0, S_IFREG | 0711);
    EXPECT_EQ(override_of("tool"), "");
    guest.chmod(file, 06755);
    expect_look(guest.chown(file, 5, 6).as<fuse_attr_out>().attr, 5, 6, S_IFREG | 0755);
    guest.chmod(file, 02644);
    expect_look(guest.chown(file, 0, 0).as<fuse_attr_out>().attr, 0, 0, S_IFREG | 02644);
    const fuse_attr other = guest.mknod(1, "node", S_IFREG | 06755).as<fuse_entry_out>().attr;
    expect_look(other, 0, 0, S_IFREG | 06755);
    EXPECT_EQ(on_host("node").st_mode, S_IFREG | 0755u);
  });
}

TEST_P(Owner, SetuidBitsEndWhenOthersWrite) {
  serve({}, [](Driver& guest) {
    const Answer made = guest.create(1, "tool", 06755);
    const uint64_t file = made.as<fuse_entry_out>().nodeid;
    const uint64_t handle = made.as<fuse_open_out>(sizeof(fuse_entry_out)).fh;
    const auto mode = [&] { return guest.attributes(file).mode & 07777; };
    guest.write(file, handle, 0, "by root", 0);
    EXPECT_EQ(mode(), 06755u);
    guest.write(file, handle, 0, "by another", FUSE_WRITE_KILL_SUIDGID);
    EXPECT_EQ(mode(), 0755u);
    guest.chmod(file, 06745);
    guest.write(file, handle, 0, "by another", FUSE_WRITE_KILL_SUIDGID);
    EXPECT_EQ(mode(), 02745u) << "setgid without execution is something else";
    guest.chmod(file, 04755);
    guest.setattr(file, {.valid = FATTR_SIZE, .size = 3});
    EXPECT_EQ(mode(), 04755u);
    guest.setattr(file, {.valid = FATTR_SIZE | FATTR_KILL_SUIDGID, .size = 2});
    EXPECT_EQ(mode(), 0755u);
    guest.chmod(file, 04755);
    const fuse_open_in in{.flags = O_WRONLY | O_TRUNC, .open_flags = FUSE_OPEN_KILL_SUIDGID};
    EXPECT_TRUE(guest.call(FUSE_OPEN, file, bytes_of(in)));
    EXPECT_EQ(mode(), 0755u);
    guest.chmod(file, 04755);
    guest.uid = 1000;
    EXPECT_TRUE(guest.call(FUSE_FALLOCATE, file, bytes_of(fuse_fallocate_in{.fh = handle, .length = 100})));
    EXPECT_EQ(mode(), 0755u);
    // Capabilities go with whatever is written, root's own included.
    guest.uid = 0;
    EXPECT_TRUE(guest.setxattr(file, "security.capability", "some"));
    guest.write(file, handle, 0, "by root", 0);
    EXPECT_EQ(guest.getxattr(file, "security.capability", 100).error, ENODATA);
    EXPECT_TRUE(guest.setxattr(file, "security.capability", "some"));
    guest.chown(file, 3, 3);
    EXPECT_EQ(guest.getxattr(file, "security.capability", 100).error, ENODATA);
  });
}

TEST_P(Owner, CapabilitiesOfBeforeEndAsWell) {
  serve({}, [](Driver& guest) {
    const Answer made = guest.create(1, "tool", 0755);
    EXPECT_TRUE(guest.setxattr(made.as<fuse_entry_out>().nodeid, "security.capability", "some"));
    guest.call(FUSE_DESTROY, 0);
    guest.init();
    const uint64_t file = guest.node(1, "tool");
    const uint64_t handle = guest.open(file, O_WRONLY).as<fuse_open_out>().fh;
    guest.write(file, handle, 0, "x");
    EXPECT_EQ(guest.getxattr(file, "security.capability", 100).error, ENODATA);
  });
}

TEST_P(Owner, DeviceNodesAreRegularFilesOfTheServers) {
  serve({}, [this](Driver& guest) {
    guest.uid = 5;
    guest.gid = 6;
    const Answer made = guest.mknod(1, "disk", S_IFBLK | 0660, device_number(8, 1));
    ASSERT_TRUE(made) << made.error;
    expect_look(made.as<fuse_entry_out>().attr, 5, 6, S_IFBLK | 0660);
    EXPECT_EQ(made.as<fuse_entry_out>().attr.rdev, device_number(8, 1));
    EXPECT_EQ(on_host("disk").st_mode, S_IFREG | 0600u);
    EXPECT_EQ(on_host("disk").st_uid, ::geteuid()) << "or its owner could make it another device";
    EXPECT_EQ(override_of("disk"), "5:6:60660:8:1");
    const uint64_t node = made.as<fuse_entry_out>().nodeid;
    expect_look(guest.chmod(node, 0600).as<fuse_attr_out>().attr, 5, 6, S_IFBLK | 0600);
    expect_look(guest.chown(node, 7, 8).as<fuse_attr_out>().attr, 7, 8, S_IFBLK | 0600);
    EXPECT_EQ(override_of("disk"), "7:8:60600:8:1");
    // Bits that do nothing there, which programs find again all the same.
    expect_look(guest.chmod(node, 06555).as<fuse_attr_out>().attr, 7, 8, S_IFBLK | 06555);
    EXPECT_EQ(on_host("disk").st_mode, S_IFREG | 0600u);
    expect_look(guest.chown(node, 7, 8).as<fuse_attr_out>().attr, 7, 8, S_IFBLK | 0555);
    expect_look(guest.chmod(node, 0600).as<fuse_attr_out>().attr, 7, 8, S_IFBLK | 0600);
    for (const Listed& one : guest.list(1, guest.opendir(1).as<fuse_open_out>().fh, true)) {
      if (one.name == "disk") {
        EXPECT_EQ(one.type, uint32_t{DT_BLK});
      }
    }
    // What overlayfs takes for a file that is not there.
    const auto whiteout = guest.mknod(1, "whiteout", S_IFCHR).as<fuse_entry_out>().attr;
    expect_look(whiteout, 5, 6, S_IFCHR);
    EXPECT_EQ(whiteout.rdev, 0u);
    EXPECT_TRUE(guest.rename(1, "disk", 1, "renamed"));
    expect_look(guest.attributes(guest.node(1, "renamed")), 7, 8, S_IFBLK | 0600);
  });
}

TEST_P(Owner, SetgidFoldersHandTheirGroupDown) {
  serve({}, [this](Driver& guest) {
    const uint64_t folder = guest.mkdir(1, "folder", 0777).as<fuse_entry_out>().nodeid;
    guest.chown(folder, 0, 50);
    expect_look(guest.chmod(folder, 02777).as<fuse_attr_out>().attr, 0, 50, S_IFDIR | 02777);
    // Setuid means nothing there, and no mode of the host has it.
    expect_look(guest.chmod(folder, 06777).as<fuse_attr_out>().attr, 0, 50, S_IFDIR | 06777);
    EXPECT_EQ(on_host("folder").st_mode & S_ISUID, 0u);
    expect_look(guest.chown(folder, 5, 50).as<fuse_attr_out>().attr, 5, 50, S_IFDIR | 06777);
    guest.uid = 1000;
    guest.gid = 1000;
    expect_look(guest.create(folder, "file", 0644).as<fuse_entry_out>().attr, 1000, 50, S_IFREG | 0644);
    expect_look(guest.mkdir(folder, "inner", 0755).as<fuse_entry_out>().attr, 1000, 50, S_IFDIR | 02755);
    expect_look(guest.attributes(guest.node(folder, "inner")), 1000, 50, S_IFDIR | 02755);
    const uint64_t inner = guest.node(folder, "inner");
    expect_look(guest.create(inner, "file", 0644).as<fuse_entry_out>().attr, 1000, 50, S_IFREG | 0644);
    expect_look(guest.chmod(inner, 0755).as<fuse_attr_out>().attr, 1000, 50, S_IFDIR | 0755);
    expect_look(guest.chmod(inner, 01777).as<fuse_attr_out>().attr, 1000, 50, S_IFDIR | 01777);
  });
}

TEST_P(Owner, OthersFilesOfTheHost) {
  Scratch::write(scratch_.shared("foreign"), "not the user's");
  ::chown(scratch_.shared("foreign").c_str(), 777, 888);
  ::chmod(scratch_.shared("foreign").c_str(), 0644);
  // Such a file's owner could write that too; it is not believed.
  ::setxattr(scratch_.shared("foreign").c_str(), kOverrideName, "0:0:106777", 10, 0);
  Scratch::write(scratch_.shared("device"), "");
  ::chown(scratch_.shared("device").c_str(), 777, 888);
  ::setxattr(scratch_.shared("device").c_str(), kOverrideName, "0:0:60666:8:0", 13, 0);
  serve({}, [this](Driver& guest) {
    const uint64_t node = guest.node(1, "foreign");
    const fuse_attr attr = guest.attributes(node);
    // Root's server lets an owner have set bits of his own files, no more.
    expect_look(attr, real() ? 777 : 65534, real() ? 888 : 65534, S_IFREG | (real() ? 06644u : 0644u));
    const fuse_attr device = guest.attributes(guest.node(1, "device"));
    EXPECT_TRUE(S_ISREG(device.mode));
    if (real()) return;
    EXPECT_EQ(guest.content(node), "not the user's");
    EXPECT_EQ(guest.chown(node, 0, 0).error, EPERM);
    EXPECT_EQ(guest.chmod(node, 0600).error, EPERM);
    EXPECT_EQ(guest.open(node, O_RDWR).error, EACCES);
    EXPECT_NE(on_host("foreign").st_uid, ::geteuid());
  });
}

TEST_P(Owner, UsersOfTheGuestsChoice) {
  serve({.uid = 1000, .gid = 100}, [this](Driver& guest) {
    guest.uid = 1000;
    guest.gid = 100;
    expect_look(guest.create(1, "mine", 0644).as<fuse_entry_out>().attr, 1000, 100, S_IFREG | 0644);
    EXPECT_EQ(override_of("mine"), "");
    EXPECT_EQ(on_host("mine").st_uid, ::geteuid());
    guest.uid = guest.gid = 0;
    expect_look(guest.create(1, "root's", 0644).as<fuse_entry_out>().attr, 0, 0, S_IFREG | 0644);
    EXPECT_EQ(override_of("root's"), "0:0:100644");
    EXPECT_EQ(on_host("root's").st_uid, ::geteuid());
    expect_look(guest.attributes(1), 1000, 100, S_IFDIR | 0755);
  });
}

TEST_P(Owner, FilesThatGiveTheirUserNoRights) {
  serve({}, [this](Driver& guest) {
    const Answer made = guest.create(1, "closed", 0);
    ASSERT_TRUE(made);
    const uint64_t node = made.as<fuse_entry_out>().nodeid;
    expect_look(made.as<fuse_entry_out>().attr, 0, 0, S_IFREG);
    guest.write(node, made.as<fuse_open_out>(sizeof(fuse_entry_out)).fh, 0, "data");
    const bool may = GetParam() != As::kPlainUser;
    EXPECT_EQ(guest.open(node, O_RDWR).error, may ? 0 : EACCES);
    EXPECT_TRUE(guest.chown(node, 5, 5));
    expect_look(guest.attributes(node), may ? 5 : 0, may ? 5 : 0, S_IFREG);
    EXPECT_TRUE(guest.chmod(node, 0600));
    EXPECT_EQ(guest.content(node), "data");
    // As git makes its objects, and tar its files.
    expect_look(guest.chmod(node, 0444).as<fuse_attr_out>().attr, 5, 5, S_IFREG | 0444);
    expect_look(guest.chown(node, 6, 7).as<fuse_attr_out>().attr, 6, 7, S_IFREG | 0444);
    EXPECT_EQ(on_host("closed").st_mode, S_IFREG | 0444u);
    guest.uid = 8;
    guest.gid = 9;
    expect_look(guest.create(1, "object", 0444).as<fuse_entry_out>().attr, 8, 9, S_IFREG | 0444);
    expect_look(guest.mkdir(1, "folder", 0500).as<fuse_entry_out>().attr, 8, 9, S_IFDIR | 0500);
    guest.uid = guest.gid = 0;
    expect_look(guest.chown(node, 5, 5).as<fuse_attr_out>().attr, 5, 5, S_IFREG | 0444);
    expect_look(guest.chmod(node, 0644).as<fuse_attr_out>().attr, 5, 5, S_IFREG | 0644);
  });
}

INSTANTIATE_TEST_SUITE_P(As, Owner, ::testing::Values(As::kRoot, As::kPlainUser, As::kUserWithNamespace),
                         [](const auto& as) {
                           return as.param == As::kRoot        ? "Root"
                                  : as.param == As::kPlainUser ? "User"
                                                               : "UserWithNamespace";
                         });

}  // namespace
}  // namespace snug::test
