// What the process that serves shares can still do once it has locked itself in.
#include "vmm/jail/share_steps.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

#include "vmm/jail/capabilities.h"

namespace snug::jail {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr uid_t kOrdinary = 1000;

enum class As { kRoot, kUser };

class ShareSteps : public testing::TestWithParam<As> {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "the sanitizer's own threads are not in a process made by a bare clone(2)";
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
    GTEST_SKIP() << "the sanitizer's own threads are not in a process made by a bare clone(2)";
#endif
#endif
    if (GetParam() == As::kRoot && ::geteuid() != 0) GTEST_SKIP() << "not root";
    std::string name = "/tmp/snug-share-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    top_ = name;
    fs::create_directories(top_ / "share/sub");
    std::ofstream(top_ / "share/file") << "inside";
    std::ofstream(top_ / "secret") << "outside";
    fs::create_symlink(top_ / "secret", top_ / "share/link");
    if (GetParam() == As::kUser && ::geteuid() == 0)
      for (const auto& entry : {top_, top_ / "share", top_ / "share/sub", top_ / "share/file"})
        ASSERT_EQ(::chown(entry.c_str(), kOrdinary, kOrdinary), 0);
  }
  void TearDown() override {
    if (!top_.empty()) fs::remove_all(top_);
  }

  using Body = std::function<std::string(ShareEntry&)>;
  // What `body` says in there, with these shares.
  std::string inside(const Body& body, bool readonly = false, const char* shared = "share") {
    std::array<int, 2> pipe{};
    EXPECT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
    const UniqueFd from(pipe[0]);
    UniqueFd to(pipe[1]);
    const pid_t parent = ::fork();
    if (parent == 0) {
      become();
      const std::string text = in_child(body, readonly, shared, to.get());
      (void)!::write(to.get(), text.data(), text.size());
      ::_exit(0);
    }
    to.reset();
    std::string text;
    std::array<char, 4096> buffer;
    for (ssize_t count; (count = ::read(from.get(), buffer.data(), buffer.size())) > 0;)
      text.append(buffer.data(), static_cast<size_t>(count));
    ::waitpid(parent, nullptr, 0);
    return text;
  }

  fs::path top_;

 private:
  static void become() {
    if (GetParam() == As::kRoot || ::geteuid() != 0) return;
    if (::setgroups(0, nullptr) != 0 || ::setresgid(kOrdinary, kOrdinary, kOrdinary) != 0 ||
        ::setresuid(kOrdinary, kOrdinary, kOrdinary) != 0)
      ::_exit(99);
    ::prctl(PR_SET_DUMPABLE, 1);
  }
  std::string in_child(const Body& body, bool readonly, const char* shared, int to) {
    const std::string path = top_ / shared;
    std::array<SharedFolder, 1> folders{
        SharedFolder{path, UniqueFd(::open(path.c_str(), O_PATH | O_CLOEXEC)), readonly}};
    auto process = split(Confinement::kNamespacesAsSelf);
    if (!process) return "no process";
    if (process->child == 0) {
      auto entry = take_share_steps(*process, {256, 64}, folders);
      const std::string text = entry ? body(*entry) : "failed: " + entry.error().message;
      (void)!::write(to, text.data(), text.size());
      ::_exit(0);
    }
    int status = -1;
    ::waitpid(process->child, &status, 0);
    return status == 0 ? "" : fmt::format("(status {:#x})", status);
  }
};
INSTANTIATE_TEST_SUITE_P(By, ShareSteps, testing::Values(As::kRoot, As::kUser),
                         [](const auto& info) { return info.param == As::kRoot ? "Root" : "User"; });

std::string missing_in(ShareEntry& entry) {
  std::string text;
  for (const MissingStep& step : entry.steps.missing) text += step.name + ": " + step.why + "; ";
  return text;
}

// "" or what is not so.
class Findings {
 public:
  void is(const char* what, bool so) {
    if (!so) text_ += fmt::format("not so: {} ({}); ", what, errno_text(errno));
  }
  void refused(const char* what, long outcome) {
    if (outcome >= 0) text_ += fmt::format("{} works; ", what);
  }
  std::string text() const { return text_; }

 private:
  std::string text_;
};

#define SKIP_UNLESS_WHOLE()                                             \
  if (const std::string missing = inside(missing_in); !missing.empty()) \
  GTEST_SKIP() << "this host refuses " << missing

TEST_P(ShareSteps, TheFolderIsThereAndCanBeWorkedIn) {
  SKIP_UNLESS_WHOLE();
  EXPECT_EQ(inside([](ShareEntry& entry) {
              Findings found;
              const int root = entry.roots.front().get();
              found.is("a file can be made", ::openat(root, "new", O_CREAT | O_EXCL | O_WRONLY, 0600) >= 0);
              found.is("its mode can be none", ::fchmodat(root, "new", 0, 0) == 0);
              // As root of the guest expects it of its own files.
              found.is("and it is read all the same", ::openat(root, "new", O_RDONLY) >= 0);
              found.is("a folder", ::mkdirat(root, "folder", 0700) == 0);
              found.is("moved into another", ::renameat(root, "new", root, "folder/moved") == 0);
              found.is("linked", ::linkat(root, "folder/moved", root, "sub/linked", 0) == 0);
              found.is("gone", ::unlinkat(root, "folder/moved", 0) == 0);
              struct stat status {};
              found.is("whose it is can be seen", ::fstatat(root, "file", &status, 0) == 0);
              found.is("and that is us", status.st_uid == ::geteuid());
              return found.text();
            }),
            "");
  struct stat status {};
  ASSERT_EQ(::stat((top_ / "share/sub/linked").c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, GetParam() == As::kRoot || ::geteuid() != 0 ? ::geteuid() : kOrdinary);
}

TEST_P(ShareSteps, NothingElseHasAName) {
  SKIP_UNLESS_WHOLE();
  const std::string secret = top_ / "secret";
  EXPECT_EQ(inside([&](ShareEntry& entry) {
              Findings found;
              const int root = entry.roots.front().get();
              for (const char* name : {"..", "../..", "link", "../secret", "/etc/passwd", "/proc", "/tmp"}) {
                const int fd = ::openat(root, name, O_RDONLY);
                struct stat status {};
                struct stat own {};
                // ".." leads to the folder of the shares, which is empty but for them.
                if (fd >= 0 && ::fstat(fd, &status) == 0 && ::fstatat(root, "..", &own, 0) == 0 &&
                    status.st_ino == own.st_ino && status.st_dev == own.st_dev)
                  continue;
                found.refused(name, fd);
              }
              found.refused("the secret", ::open(secret.c_str(), O_RDONLY));
              found.refused("to make something beside it", ::mkdir("/1", 0700));
              found.refused("to make something above it", ::mkdirat(root, "../new", 0700));
              found.refused("a character device", ::mknodat(root, "null", S_IFCHR | 0600, 0x103));
              found.refused("a block device", ::mknodat(root, "disk", S_IFBLK | 0600, 0x800));
              found.refused("a mount", ::mount("none", "/0/sub", "tmpfs", 0, nullptr));
              found.refused("to remount", ::mount(nullptr, "/0", nullptr, MS_REMOUNT | MS_BIND, nullptr));
              found.refused("to unmount", ::umount2("/0", MNT_DETACH));
              found.refused("chroot", ::chroot("/0"));
              return found.text();
            }),
            "");
}

TEST_P(ShareSteps, OpenFilesWithoutTheRestOfProc) {
  SKIP_UNLESS_WHOLE();
  EXPECT_EQ(
      inside([](ShareEntry& entry) {
        Findings found;
        const int own = entry.own_files.get();
        found.is("there is such a folder", own >= 0);
        const std::string name = std::to_string(entry.roots.front().get());
        const UniqueFd again(::openat(own, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        found.is("an open file has a name in it", static_cast<bool>(again));
        found.is("a file in that", ::faccessat(again.get(), "file", F_OK, 0) == 0);
        struct stat here {};
        struct stat above {};
        found.is("it can be looked at", ::fstat(own, &here) == 0 && ::fstatat(own, "..", &above, 0) == 0);
        found.is("nothing is above it", here.st_ino == above.st_ino && here.st_dev == above.st_dev);
        for (const char* path : {"../status", "../root/etc", "../../1/root", "../../self/root", "../cwd"})
          found.refused(path, ::openat(own, path, O_RDONLY));
        found.is("it can be gone into", ::fchdir(own) == 0);
        found.refused("and not up from there", ::open("../status", O_RDONLY));
        return found.text();
      }),
      "");
}

TEST_P(ShareSteps, RightsOverFilesAndNoOthers) {
  SKIP_UNLESS_WHOLE();
  EXPECT_EQ(inside([](ShareEntry&) {
              Findings found;
              for (int capability = 0; capability < 41; ++capability) {
                const bool over_files = capability == CAP_CHOWN || capability == CAP_DAC_OVERRIDE ||
                                        capability == CAP_FOWNER || capability == CAP_FSETID;
                if (!over_files && has_capability(capability)) found.is("no further capability", false);
                if (::prctl(PR_CAPBSET_READ, capability) > 0) found.is("an empty bounding set", false);
              }
              found.is("no_new_privs", ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
              found.is("not dumpable", ::prctl(PR_GET_DUMPABLE) == 0);
              found.refused("another user", ::setresuid(4321, 4321, 4321));
              return found.text();
            }),
            "");
}

TEST_P(ShareSteps, WhatIsReadOnlyIsSoInTruth) {
  SKIP_UNLESS_WHOLE();
  EXPECT_EQ(inside(
                [](ShareEntry& entry) {
                  Findings found;
                  const int root = entry.roots.front().get();
                  found.is("a file can be read", ::openat(root, "file", O_RDONLY) >= 0);
                  found.refused("to write", ::openat(root, "file", O_WRONLY));
                  found.refused("a new file", ::openat(root, "new", O_CREAT | O_WRONLY, 0600));
                  found.refused("a new folder", ::mkdirat(root, "new", 0700));
                  found.refused("to remove", ::unlinkat(root, "file", 0));
                  found.refused("to move", ::renameat(root, "file", root, "other"));
                  found.refused("modes", ::fchmodat(root, "file", 0777, 0));
                  return found.text();
                },
                true),
            "");
}

TEST_P(ShareSteps, AFileHasNothingBesideIt) {
  SKIP_UNLESS_WHOLE();
  EXPECT_EQ(inside(
                [](ShareEntry& entry) {
                  Findings found;
                  struct stat status {};
                  found.is("it is a file",
                           ::fstat(entry.roots.front().get(), &status) == 0 && S_ISREG(status.st_mode));
                  found.refused("beside it", ::openat(entry.roots.front().get(), "../secret", O_RDONLY));
                  found.refused("beside it", ::open("/secret", O_RDONLY));
                  return found.text();
                },
                false, "share/file"),
            "");
}

TEST_P(ShareSteps, AFolderThatWasSwappedMeanwhileIsRefused) {
  SKIP_UNLESS_WHOLE();
  fs::create_directory(top_ / "other");
  const std::string path = top_ / "share";
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
  std::array<SharedFolder, 1> folders{
      SharedFolder{path, UniqueFd(::open((top_ / "other").c_str(), O_PATH | O_CLOEXEC)), false}};
  auto process = split(Confinement::kNamespacesAsSelf);
  ASSERT_TRUE(process);
  if (process->child == 0) {
    auto entry = take_share_steps(*process, {256, 64}, folders);
    const std::string text = entry ? "entered" : entry.error().message;
    (void)!::write(pipe[1], text.data(), text.size());
    ::_exit(0);
  }
  ::close(pipe[1]);
  std::array<char, 512> buffer{};
  EXPECT_GT(::read(pipe[0], buffer.data(), buffer.size() - 1), 0);
  ::close(pipe[0]);
  ::waitpid(process->child, nullptr, 0);
  EXPECT_THAT(std::string(buffer.data()), HasSubstr("is not what it was a moment ago"));
}

}  // namespace
}  // namespace snug::jail
