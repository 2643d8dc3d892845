#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/unit/spec/problems.h"
#include "tests/unit/spec/temp_folder.h"
#include "vmm/spec/describe.h"

namespace snug {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class LoadSpec : public TempFolder {
 protected:
  std::vector<std::string> load(const std::optional<std::string>& file, const FlagValues& flags = {}) {
    auto outcome = load_spec(file, flags);
    spec_ = std::move(outcome.spec);
    return texts_of(outcome.problems);
  }
  Spec spec_;
};

TEST_F(LoadSpec, PathsAreRelativeToTheSpec) {
  write("specs/k", "x");
  write("specs/vm.yaml", "kernel: k\nconsole: file:c.log\n");
  EXPECT_THAT(load("specs/vm.yaml"), IsEmpty());
  EXPECT_EQ(spec_.kernel, path("specs/k"));
  EXPECT_EQ(spec_.console.path, path("specs/c.log"));
  EXPECT_EQ(spec_.name, "vm");
  EXPECT_THAT(load(path("specs/vm.yaml")), IsEmpty());
  EXPECT_EQ(spec_.kernel, path("specs/k"));
  EXPECT_FALSE(std::filesystem::exists(path("specs/c.log")));
}

TEST_F(LoadSpec, FlagsWinAndAreRelativeToTheWorkingFolder) {
  write("mine", "x");
  write("specs/vm.yaml", "kernel: gone\ninitrd: [gone1, gone2]\ncpus: 2\ncmdline: a\nlog: debug\nname: n\n");
  FlagValues flags;
  flags.add("kernel", "mine");
  flags.add("initrd", "mine");
  flags.add("cpus", "3");
  flags.add("cpus", "5");
  flags.add("cmdline", "b");
  flags.add("cmdline", "c d");
  flags.add("log.file", "l");
  EXPECT_THAT(load("specs/vm.yaml", flags), IsEmpty());
  EXPECT_EQ(spec_.kernel, path("mine"));
  EXPECT_EQ(spec_.initrd, std::vector{path("mine")});
  EXPECT_EQ(spec_.cpus, 5U);
  EXPECT_EQ(spec_.cmdline, "b c d");
  EXPECT_EQ(spec_.log, (LogSpec{LogLevel::kDebug, path("l")}));
  EXPECT_EQ(spec_.name, "n");
}

TEST_F(LoadSpec, CacheNamesAFileOfAPreparedImage) {
  ASSERT_EQ(::setenv("XDG_CACHE_HOME", path("cache").c_str(), 1), 0);
  write("cache/snug/debian/kernel", "k");
  write("cache/snug/debian/disk", "d");
  write("specs/a.yaml", "kernel: cache:debian/kernel\ndisks: [{path: 'cache:debian/disk'}]\n");
  EXPECT_THAT(load("specs/a.yaml"), IsEmpty());
  EXPECT_EQ(spec_.kernel, path("cache/snug/debian/kernel"));
  EXPECT_EQ(spec_.disks[0].path, path("cache/snug/debian/disk"));

  write("specs/b.yaml", "kernel: cache:fedora/kernel\ninitrd: 'cache:/x'\n");
  EXPECT_THAT(load("specs/b.yaml"), testing::UnorderedElementsAre(
                                        testing::HasSubstr("to make it: snug image build fedora"),
                                        testing::HasSubstr("expected an image and a file after 'cache:'")));
  ::unsetenv("XDG_CACHE_HOME");
}

TEST_F(LoadSpec, ThePathOfAnImageIsRelativeToWhoNamesIt) {
  const auto image_of = [&](const std::string& name) {
    write("specs/i.yaml", "image: " + name + "\n");
    EXPECT_THAT(load("specs/i.yaml"), IsEmpty());
    return spec_.image;
  };
  const std::string specs = path("specs") + "/";
  EXPECT_EQ(image_of("oci:layout:latest"), "oci:" + specs + "layout:latest");
  EXPECT_EQ(image_of("oci-archive:./a.tar"), "oci-archive:" + specs + "a.tar");
  EXPECT_EQ(image_of("docker-archive:../a.tar:x"), "docker-archive:" + specs + "../a.tar:x");
  EXPECT_EQ(image_of("dir:/a"), "dir:/a");
  EXPECT_EQ(image_of("oci"), "oci");
  EXPECT_EQ(image_of("quay.io/a:b"), "quay.io/a:b");
  EXPECT_EQ(image_of("docker-daemon:a:b"), "docker-daemon:a:b");
  FlagValues flags;
  flags.add("image", "oci:layout");
  EXPECT_EQ(load_spec(std::nullopt, flags).spec.image, "oci:" + path("layout"));
}

TEST_F(LoadSpec, WhatIsForImagesOnly) {
  write("specs/i.yaml", "publish_all: true\nstorage: 1G\n");
  EXPECT_THAT(load("specs/i.yaml"),
              testing::ElementsAre(testing::HasSubstr("storage: it is for the root of an image"),
                                   testing::HasSubstr("publish_all: there is no image")));
  write("specs/i.yaml", "image: alpine\npublish_all: true\nstorage: 1G\n");
  EXPECT_THAT(load("specs/i.yaml"), IsEmpty());
  EXPECT_EQ(spec_.storage, uint64_t{1} << 30);
  EXPECT_THAT(effective_spec_yaml(spec_),
              testing::AllOf(testing::HasSubstr("storage: 1G\n"), testing::HasSubstr("publish_all: true\n")));
  write("specs/i.yaml", "image: alpine\nstorage: 4K\n");
  EXPECT_THAT(load("specs/i.yaml"), testing::ElementsAre(testing::HasSubstr("storage: at least 64M")));
}

TEST_F(LoadSpec, AWordNamesTheKernelOfAnImage) {
  write("specs/a.yaml", "kernel: stock\n");
  EXPECT_THAT(load("specs/a.yaml"), IsEmpty());
  EXPECT_EQ(spec_.kernel, "stock");
  const auto again = effective_spec_yaml(spec_);
  EXPECT_THAT(again, testing::HasSubstr("kernel: stock\n"));

  // A file of that name is still to be had.
  write("specs/stock", "k");
  write("specs/b.yaml", "kernel: ./stock\n");
  EXPECT_THAT(load("specs/b.yaml"), IsEmpty());
  EXPECT_EQ(spec_.kernel, path("specs/stock"));
}

TEST_F(LoadSpec, FlagsAlone) {
  write("k", "x");
  FlagValues flags;
  flags.add("kernel", "k");
  EXPECT_THAT(load(std::nullopt, flags), IsEmpty());
  EXPECT_EQ(spec_.name, "snug");
  EXPECT_THAT(load(std::nullopt), IsEmpty());
  EXPECT_EQ(spec_, Spec{});
}

TEST_F(LoadSpec, EverythingWrongIsSaidAtOnce) {
  write("vm.yaml", "log: {file: sub/l}\nkernel: k\ninitrd: [i, /nope/j]\ncpus: none\n");
  FlagValues flags;
  flags.add("memory", "1");
  flags.add("console", "file:");
  flags.add("log.level", "inf");
  EXPECT_THAT(
      load("vm.yaml", flags),
      ElementsAre(
          "vm.yaml:1:13: log.file: no such folder: " + path("sub") + " (relative to the spec's folder)",
          "vm.yaml:2:9: kernel: no such file: " + path("k") + " (relative to the spec's folder)",
          "vm.yaml:3:10: initrd: no such file: " + path("i") + " (relative to the spec's folder)",
          "vm.yaml:3:13: initrd: no such file: /nope/j",
          "vm.yaml:4:7: cpus: expected a whole number from 1 to 64, got 'none'",
          "--memory: expected a size such as 512M or 2G, got '1' (did you mean 1M?)",
          "--console: the path is empty",
          "--log-level: expected trace, debug, info, warn, error or off, got 'inf' (did you mean 'info'?)"));
}

TEST_F(LoadSpec, InputsMustBeUsable) {
  write("empty", "");
  write("file", "x");
  std::filesystem::create_directory(path("folder"));
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  write("vm.yaml", "kernel: pipe\ninitrd: [empty, folder, file/x, ~/x, /dev/null]\n");
  EXPECT_THAT(
      load("vm.yaml"),
      ElementsAre(
          "vm.yaml:2:10: initrd: is empty: " + path("empty") + " (relative to the spec's folder)",
          "vm.yaml:2:17: initrd: is a folder, not a file: " + path("folder") +
              " (relative to the spec's folder)",
          "vm.yaml:2:25: initrd: Not a directory: " + path("file/x") + " (relative to the spec's folder)",
          "vm.yaml:2:33: initrd: no such file: " + path("~/x") +
              "; '~' is not expanded, write the folder out (relative to the spec's folder)",
          "vm.yaml:2:38: initrd: is not a regular file: /dev/null"));
}

TEST_F(LoadSpec, OutputsMustBeWritable) {
  std::filesystem::create_directory(path("folder"));
  write("k", "x");
  write("vm.yaml", "kernel: k\nconsole: file:folder\nlog: {file: /dev/null}\n");
  EXPECT_THAT(load("vm.yaml"), ElementsAre("vm.yaml:2:10: console: is a folder, not a file: " +
                                           path("folder") + " (relative to the spec's folder)"));
}

// Root may read everything: becomes nobody meanwhile.
TEST_F(LoadSpec, PermissionsCount) {
  write("k", "x");
  write("locked/x", "x");
  write("vm.yaml", "kernel: k\nconsole: file:locked/new\n");
  ::chmod(path("k").c_str(), 0);
  ::chmod(path("locked").c_str(), 0555);
  ::chmod(path(".").c_str(), 0755);
  constexpr uid_t kNobody = 65534;
  const uid_t before = ::geteuid();
  if (before == 0 && ::seteuid(kNobody) != 0) GTEST_SKIP() << "cannot leave root";
  const auto problems = load("vm.yaml");
  EXPECT_EQ(::seteuid(before), 0);
  const std::string note = " (relative to the spec's folder)";
  EXPECT_THAT(
      problems,
      ElementsAre("vm.yaml:1:9: kernel: cannot be read (Permission denied): " + path("k") + note,
                  "vm.yaml:2:10: console: cannot be made (Permission denied): " + path("locked/new") + note));
  ::chmod(path("locked").c_str(), 0700);
}

TEST_F(LoadSpec, TheSpecItself) {
  write("big.yaml", std::string(kMaxSpecBytes + 1, '#'));
  write("empty.yaml", "");
  std::filesystem::create_directory(path("folder"));
  FlagValues flags;
  flags.add("cpus", "0");
  EXPECT_THAT(load("gone.yaml", flags), ElementsAre("gone.yaml: no such file",
                                                    "--cpus: expected a whole number from 1 to 64, got '0'"));
  EXPECT_THAT(load("folder"), ElementsAre("folder: is a folder, not a spec file"));
  EXPECT_THAT(load("/dev/null"), ElementsAre("/dev/null: is not a regular file"));
  EXPECT_THAT(load("big.yaml"), ElementsAre("big.yaml: larger than 1024 KiB; is this a spec?"));
  EXPECT_THAT(load("empty.yaml"), ElementsAre("empty.yaml: the spec is empty"));
  EXPECT_THAT(load(""), ElementsAre("'': no such file"));
  write("null.yaml", "kernel:\n");
  EXPECT_THAT(load("null.yaml"),
              ElementsAre("null.yaml:1:1: kernel: needs a value: a path, default or stock"));
}

TEST_F(LoadSpec, FromAPipe) {
  write("k", "x");
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const std::string text = "kernel: k\ncpus: x\n";
  ASSERT_EQ(::write(ends[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  ::close(ends[1]);
  EXPECT_THAT(load(fmt::format("/dev/fd/{}", ends[0])),
              ElementsAre("<pipe>:2:7: cpus: expected a whole number from 1 to 64, got 'x'"));
  EXPECT_EQ(spec_.kernel, path("k"));
  ::close(ends[0]);
}

}  // namespace
}  // namespace snug
