#include "vmm/spec/shares.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/spec/problems.h"
#include "tests/unit/spec/temp_folder.h"
#include "vmm/base/socket_address.h"
#include "vmm/base/unique_fd.h"
#include "vmm/spec/describe.h"

namespace snug {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

std::vector<ShareSpec> shares_of(std::string_view yaml) {
  const auto outcome = parse_spec_text(yaml, "vm.yaml", "/specs");
  EXPECT_THAT(texts_of(outcome.problems), IsEmpty()) << yaml;
  // What is printed is read back as the same.
  const auto again = parse_spec_text(effective_spec_yaml(outcome.spec), "vm.yaml", "/other");
  EXPECT_EQ(again.spec.shares, outcome.spec.shares);
  return outcome.spec.shares;
}

ShareSpec share(std::string source, std::string target, std::string tag = "share0", bool readonly = false) {
  return {
      .source = std::move(source), .target = std::move(target), .tag = std::move(tag), .readonly = readonly};
}

TEST(Shares, Maps) {
  EXPECT_THAT(shares_of("cpus: 1"), IsEmpty());
  EXPECT_THAT(shares_of("shares: {source: src}"), ElementsAre(share("/specs/src", "")));
  EXPECT_THAT(
      shares_of("shares: [{source: ./src/, target: //work/./a/, readonly: true}, {source: .}, {source: /}]"),
      ElementsAre(share("/specs/src", "/work/a", "share0", true), share("/specs", "", "share1"),
                  share("/", "", "share2")));
  ShareSpec all = share("/a", "/b", "c.d_e-1", true);
  all.cache = ShareCacheMode::kNone;
  all.submounts = true;
  all.uid = 0;
  all.gid = 0xfffffffe;
  EXPECT_THAT(
      shares_of(
          "shares: [{source: /a, target: /b, tag: c.d_e-1, readonly: yes, cache: none, submounts: true, "
          "uid: 0, gid: 4294967294}]"),
      ElementsAre(all));
}

// As compose has it.
TEST(Shares, Texts) {
  EXPECT_THAT(shares_of("shares: src:/work"), ElementsAre(share("/specs/src", "/work")));
  EXPECT_THAT(shares_of("shares: ['src:/work:ro', /data, '../up:rw', '.:ro', '/x:/y:rw']"),
              ElementsAre(share("/specs/src", "/work", "share0", true), share("/data", "/data", "share1"),
                          share("/specs/../up", "/up", "share2"), share("/specs", "/specs", "share3", true),
                          share("/x", "/y", "share4")));
}

TEST(Shares, TagsAreMadeUpAroundThoseThatAreGiven) {
  const auto shares = shares_of("shares: [/a, {source: /b, tag: share0}, {source: /c, tag: share2}, /d, /e]");
  EXPECT_THAT(
      shares,
      ElementsAre(testing::Field(&ShareSpec::tag, "share1"), testing::Field(&ShareSpec::tag, "share0"),
                  testing::Field(&ShareSpec::tag, "share2"), testing::Field(&ShareSpec::tag, "share3"),
                  testing::Field(&ShareSpec::tag, "share4")));
}

TEST(Shares, EverythingWrongIsSaidWithItsPlace) {
  EXPECT_THAT(
      problems_in("shares:\n"
                  "- source: ''\n"
                  "  target: work\n"
                  "- {target: /a}\n"
                  "- {source: /b, target: /a/, tag: x}\n"
                  "- {source: /c, target: /c/../d, tag: x, cache: alwys}\n"
                  "- source: /d\n"
                  "  target: //./\n"
                  "  tag: a b\n"
                  "  uid: 4294967295\n"
                  "- [x]\n"
                  "- 'a:b'\n"),
      ElementsAre(
          "vm.yaml:2:11: shares[0].source: the path is empty",
          "vm.yaml:3:11: shares[0].target: expected an absolute path in the guest, got 'work'",
          "vm.yaml:4:3: shares[1]: source is missing",
          "vm.yaml:5:24: shares[2].target: '/a' is the target of another share already, of ''",
          "vm.yaml:6:24: shares[3].target: '..' is not allowed in a target, got '/c/../d'",
          "vm.yaml:6:38: shares[3].tag: 'x' is the tag of another share already, of '/b'",
          "vm.yaml:6:48: shares[3].cache: expected auto, always or none, got 'alwys' (did you mean "
          "'always'?)",
          "vm.yaml:8:11: shares[4].target: '//./' is the guest's own root: name a folder below it",
          "vm.yaml:9:8: shares[4].tag: expected up to 36 letters, digits, '_', '.' or '-', beginning "
          "with a letter, a digit or '_', got 'a b'",
          "vm.yaml:10:8: shares[4].uid: expected a whole number from 0 to 4294967294, got '4294967295'",
          StartsWith("vm.yaml:11:3: shares[5]: expected SOURCE[:TARGET][:ro|rw], or a map with source, "
                     "target, tag, readonly, cache, submounts, uid or gid"),
          "vm.yaml:12:3: shares[6]: expected SOURCE[:TARGET][:ro|rw] with an absolute path in the guest "
          "as its target, got 'b' in 'a:b'"));
}

TEST(Shares, ProblemsOfTexts) {
  EXPECT_THAT(
      problems_in("shares: a:/b:/c"),
      ElementsAre(
          "vm.yaml:1:9: shares: expected SOURCE[:TARGET][:ro|rw], got 'a:/b:/c'; a source with a colon "
          "in it is written source=PATH,target=DIR"));
  EXPECT_THAT(problems_in("shares: a:/b:Z"),
              ElementsAre(HasSubstr("labels of SELinux are left alone: leave that out")));
  EXPECT_THAT(problems_in("shares: a:/b:or"), ElementsAre(HasSubstr("got 'a:/b:or'")));
  EXPECT_THAT(problems_in("shares: 'a:'"), ElementsAre(HasSubstr("absolute path in the guest")));
  EXPECT_THAT(problems_in("shares: ':/b'"), ElementsAre("vm.yaml:1:9: shares.source: the path is empty"));
  EXPECT_THAT(problems_in("shares: /"),
              ElementsAre("vm.yaml:1:9: shares.target: '/' is the guest's own root: name a "
                          "folder below it"));
  EXPECT_THAT(
      problems_in("shares: [/a:/x, /b:/x]"),
      ElementsAre("vm.yaml:1:17: shares[1].target: '/x' is the target of another share already, of '/a'"));
  EXPECT_THAT(problems_in("shares: {source: /a, tag: " + std::string(37, 'x') + "}"),
              ElementsAre(HasSubstr("shares.tag: longer than 36 bytes, got")));
  EXPECT_THAT(problems_in("shares: {source: /a, tag: -x}"),
              ElementsAre(HasSubstr("beginning with a letter")));
  std::string many = "shares: [";
  for (int i = 0; i < 17; ++i) many += "/s" + std::to_string(i) + ", ";
  EXPECT_THAT(problems_in(many + "]"), ElementsAre(HasSubstr("shares[16]: at most 16 shares, got 17")));
}

TEST(Shares, WhatOthersCallThem) {
  for (const char* name : {"volumes", "volume", "mounts", "mount", "virtiofs", "virtio-fs", "filesystems",
                           "fs", "bind", "share", "9p", "shared_folders"})
    EXPECT_THAT(problems_in(std::string(name) + ": [a]"), ElementsAre(HasSubstr("(did you mean 'shares'?)")))
        << name;
  const std::pair<const char*, const char*> keys[] = {{"path", "source"},          {"host_path", "source"},
                                                      {"src", "source"},           {"dst", "target"},
                                                      {"mount_point", "target"},   {"mountPoint", "target"},
                                                      {"containerPath", "target"}, {"destination", "target"},
                                                      {"read_only", "readonly"},   {"readOnly", "readonly"},
                                                      {"ro", "readonly"},          {"writable", "readonly"},
                                                      {"mount_tag", "tag"},        {"name", "tag"},
                                                      {"cache_mode", "cache"},     {"group", "gid"}};
  for (const auto& [name, meant] : keys)
    EXPECT_THAT(problems_in("shares: [{source: /a, " + std::string(name) + ": x}]"),
                ElementsAre(HasSubstr(fmt::format("(did you mean '{}'?)", meant))))
        << name;
}

class ShareFiles : public TempFolder {
 protected:
  std::vector<std::string> load(const std::vector<std::string>& flags,
                                const std::optional<std::string>& file = {}) {
    FlagValues values;
    for (const auto& flag : flags) values.add("shares", flag);
    auto outcome = load_spec(file, values);
    shares_ = std::move(outcome.spec.shares);
    return texts_of(outcome.problems);
  }
  std::vector<ShareSpec> shares_;
};

TEST_F(ShareFiles, Flags) {
  write("src/file", "x");
  write("a:b=c,d/file", "x");
  EXPECT_THAT(load({"."}), IsEmpty());
  EXPECT_THAT(shares_, ElementsAre(share(path(".").substr(0, path(".").size() - 2),
                                         path("src").substr(0, path("src").size() - 4))));
  EXPECT_THAT(load({path("src"), "src:/work:ro,cache=none,tag=t", "src,target=/other", "source=src",
                    "src/file:/etc/motd"}),
              IsEmpty());
  ShareSpec second = share(path("src"), "/work", "t", true);
  second.cache = ShareCacheMode::kNone;
  EXPECT_THAT(shares_,
              ElementsAre(share(path("src"), path("src")), second, share(path("src"), "/other", "share2"),
                          share(path("src"), "", "share3"), share(path("src/file"), "/etc/motd", "share4")));
  // Commas, colons and equals signs of a path.
  EXPECT_THAT(load({"source=a:b=c,,d,target=/x", "./a:b=c,,d"}),
              ElementsAre(HasSubstr("got 'b=c,d' in './a:b=c,d'")));
  EXPECT_EQ(shares_[0], share(path("a:b=c,d"), "/x"));
  write("a=b/file", "x");
  EXPECT_THAT(load({"./a=b:/x"}), IsEmpty());
  EXPECT_EQ(shares_[0], share(path("a=b"), "/x"));
}

TEST_F(ShareFiles, FlagProblems) {
  write("src/file", "x");
  EXPECT_THAT(
      load({"src:work", "src:/a,target=/b", "src:/a", "target=/c", "src:/d,chace=none", "/:ro,target=/e"}),
      ElementsAre(
          "--share: expected SOURCE[:TARGET][:ro|rw] with an absolute path in the guest as its target, "
          "got 'work' in 'src:work'",
          "--share: duplicate key 'target'", "--share: unknown key 'chace' (did you mean 'cache'?)",
          HasSubstr("--share: '/a' is the target of another share already"), "--share: source is missing"));
  EXPECT_THAT(load({"/"}), ElementsAre(HasSubstr("--share: target: '/' is the guest's own root")));
}

TEST_F(ShareFiles, FlagsReplaceTheList) {
  write("src/file", "x");
  write("vm.yaml", "shares: [{target: /x}, {source: gone, target: /y}]\n");
  EXPECT_THAT(load({"src:/y", "src:/y"}, "vm.yaml"), ElementsAre(StartsWith("--share: '/y' is the target")));
  EXPECT_THAT(
      load({}, "vm.yaml"),
      ElementsAre("vm.yaml:1:10: shares[0]: source is missing",
                  "vm.yaml:1:33: shares[1].source: no such folder or file: " + path("gone") +
                      "; docker makes what is missing, snug does not (relative to the spec's folder)"));
}

TEST_F(ShareFiles, SourcesMustBeUsable) {
  write("file", "");
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM, 0));
  const sockaddr_un address = *socket_address(path("sock"));
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_THAT(load({"gone", "~/gone:/g", "file/x:/f", "pipe", "sock", "/dev/null"}),
              ElementsAre("--share: source: no such folder or file: " + path("gone") +
                              "; docker makes what is missing, snug does not",
                          "--share: source: no such folder or file: " + path("~/gone") +
                              "; '~' is not expanded, write the folder out",
                          "--share: source: Not a directory: " + path("file/x"),
                          "--share: source: is a pipe, not a folder or a file: " + path("pipe"),
                          "--share: source: is a socket, not a folder or a file: " + path("sock"),
                          "--share: source: is a device, not a folder or a file: /dev/null"));
  EXPECT_THAT(load({"file"}), IsEmpty()) << "a file may be empty";
}

// Root may read everything: becomes nobody meanwhile.
TEST_F(ShareFiles, PermissionsCount) {
  write("locked/x", "x");
  write("file", "x");
  ::chmod(path("locked").c_str(), 0600);
  ::chmod(path("file").c_str(), 0);
  ::chmod(path(".").c_str(), 0755);
  const uid_t before = ::geteuid();
  if (before == 0 && ::seteuid(65534) != 0) GTEST_SKIP() << "cannot leave root";
  const auto problems = load({"locked", "file"});
  EXPECT_EQ(::seteuid(before), 0);
  EXPECT_THAT(problems, ElementsAre("--share: source: cannot be read (Permission denied): " + path("locked"),
                                    "--share: source: cannot be read (Permission denied): " + path("file")));
  ::chmod(path("locked").c_str(), 0700);
}

TEST_F(ShareFiles, AFolderOfTheHostIsFoundInTheGuest) {
  write("src/deep/file", "x");
  std::filesystem::create_directory_symlink("src/deep", path("link"));
  const std::vector<ShareSpec> shares{share(path("src/deep/file"), "/file"), share(path("src"), ""),
                                      share(path("gone"), "/gone"), share(path("src"), "/work"),
                                      share(path("src/deep"), "/later")};
  EXPECT_EQ(guest_folder_of(shares, path("src")), "/work");
  EXPECT_EQ(guest_folder_of(shares, path("src/deep")), "/work/deep");
  EXPECT_EQ(guest_folder_of(shares, path("link")), "/work/deep");
  EXPECT_EQ(guest_folder_of(shares, path(".")), "");
  EXPECT_EQ(guest_folder_of(shares, path("gone")), "");
  EXPECT_EQ(guest_folder_of({share("/", "/host")}, path("src")), "/host" + path("src"));
  std::filesystem::create_directory(path("src2"));
  EXPECT_EQ(guest_folder_of(shares, path("src2")), "");
}

TEST_F(ShareFiles, AFolderOfTheHostIsFoundInARoot) {
  write("root/deep/tmp/file", "x");
  write("root/tmp/file", "x");
  std::filesystem::create_directory_symlink("root/deep", path("link"));
  EXPECT_EQ(guest_folder_in_root(path("root"), path("root")), "/");
  EXPECT_EQ(guest_folder_in_root(path("root"), path("root/deep")), "/deep");
  EXPECT_EQ(guest_folder_in_root(path("root"), path("link")), "/deep");
  EXPECT_EQ(guest_folder_in_root(path("root"), path("root/deep/tmp")), "/deep/tmp");
  EXPECT_EQ(guest_folder_in_root(path("root"), path("root/tmp")), "") << "the guest has its own";
  EXPECT_EQ(guest_folder_in_root(path("root"), path(".")), "");
  EXPECT_EQ(guest_folder_in_root(path("root"), path("gone")), "");
  EXPECT_EQ(guest_folder_in_root("/", "/proc/self"), "") << "another file system";
}

}  // namespace
}  // namespace snug
