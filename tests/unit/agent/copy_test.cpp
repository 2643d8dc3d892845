// Copies through the client and the real agent: what arrives, where, and as what.
#include "tests/unit/agent/copy_fixture.h"
#include "vmm/protocol/tree_reader.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include <filesystem>
#include <thread>

namespace snug::test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

INSTANTIATE_TEST_SUITE_P(Copies, BothWays, testing::Values(Way::kPut, Way::kGet),
                         [](const auto& way) { return way.param == Way::kPut ? "Put" : "Get"; });

void set_time(const std::string& path, time_t seconds, long nanoseconds) {
  const timespec times[] = {{seconds, nanoseconds}, {seconds, nanoseconds}};
  ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), static_cast<const timespec*>(times), AT_SYMLINK_NOFOLLOW), 0);
}

TEST_P(BothWays, AFile) {
  const std::string content = std::string(300'000, 'x') + std::string("\0end", 4);
  write("a", content);
  ::chmod(in("a").c_str(), 0741);
  const Copied copied = copy("a", "b");
  EXPECT_TRUE(copied.all()) << copied;
  EXPECT_TRUE(read("b") == content);
  EXPECT_EQ(mode("b"), 0741u);
}

// --- where it arrives: as cp(1) ------------------------------------------------------------------------

TEST_P(BothWays, IntoAFolder) {
  write("a", "new");
  write("e", "");
  fs::create_directory(in("to"));
  write("to/a", "old and longer");
  EXPECT_TRUE(copy("a", "to").all());
  EXPECT_EQ(read("to/a"), "new");
  EXPECT_TRUE(copy("e", "to/").all());
  EXPECT_EQ(fs::file_size(in("to/e")), 0u);
  fs::create_directories(in("tree/deep"));
  write("tree/deep/file", "content");
  for (const char* source : {"tree", "tree/", "tree//"}) {
    EXPECT_TRUE(copy(source, "to").all());
    EXPECT_EQ(read("to/tree/deep/file"), "content");
    fs::remove_all(in("to/tree"));
  }
}

TEST_P(BothWays, TheContentsOfAFolder) {
  fs::create_directories(in("src/deep"));
  write("src/deep/file", "content");
  write("src/.hidden", "x");
  for (const char* source : {"src/.", "src/./", "src/deep/.."}) {
    for (const bool there : {true, false}) {
      if (there) {
        fs::create_directory(in("to"));
        ::chmod(in("to").c_str(), 0750);
      }
      const Copied copied = copy(source, "to");
      EXPECT_TRUE(copied.all()) << source << ": " << copied;
      EXPECT_EQ(read("to/deep/file"), "content") << source;
      EXPECT_EQ(read("to/.hidden"), "x") << source;
      // One that was there keeps its mode.
      EXPECT_EQ(mode("to"), there ? 0750u : mode("src"));
      fs::remove_all(in("to"));
    }
  }
}

TEST_P(BothWays, AFolderThatIsNotThereMayEndInASlashAFileNot) {
  fs::create_directory(in("src"));
  write("src/file", "x");
  EXPECT_TRUE(copy("src", "new/").all());
  EXPECT_EQ(read("new/file"), "x");
  EXPECT_THAT(copy("src/file", "other/").error, HasSubstr("Not a directory"));
  EXPECT_FALSE(fs::exists(in("other")));
  EXPECT_THAT(copy("src/file/", "new").error, HasSubstr("Not a directory"));
}

TEST_P(BothWays, AFolderOntoAFileAndAFileOntoAFolder) {
  fs::create_directories(in("src/a"));
  write("src/a/inner", "x");
  write("src/b", "b");
  write("src/z", "z");
  write("file", "mine");
  EXPECT_THAT(copy("src", "file").error, HasSubstr("file: Not a directory"));
  EXPECT_EQ(read("file"), "mine");
  fs::create_directories(in("to/src/b"));
  write("to/src/a", "a file");
  const Copied copied = copy("src", "to");
  EXPECT_EQ(copied.error, "");
  EXPECT_THAT(copied.failed, testing::UnorderedElementsAre(HasSubstr("to/src/a: Not a directory"),
                                                           HasSubstr("to/src/b: Is a directory")));
  EXPECT_EQ(read("to/src/a"), "a file");
  EXPECT_EQ(read("to/src/z"), "z");
}

// --- onto what is no file: into it ---------------------------------------------------------------------

TEST_P(BothWays, OntoALink) {
  write("a", "new");
  write("real", "old and longer");
  fs::create_symlink("real", in("link"));
  EXPECT_TRUE(copy("a", "link").all());
  EXPECT_TRUE(fs::is_symlink(in("link")));
  EXPECT_EQ(read("real"), "new");
  fs::create_symlink("nowhere", in("dangling"));
  EXPECT_THAT(copy("a", "dangling").error, HasSubstr("dangling: a link to nothing"));
  EXPECT_TRUE(fs::is_symlink(in("dangling")));
  EXPECT_FALSE(fs::exists(in("nowhere")));
}

TEST_P(BothWays, OntoAFifo) {
  const std::string content = std::string(200'000, 'x') + "end";
  write("a", content);
  ASSERT_EQ(::mkfifo(in("pipe").c_str(), 0600), 0);
  std::string seen;
  std::thread reader([&] { seen = read("pipe"); });
  EXPECT_TRUE(copy("a", "pipe").all());
  reader.join();
  EXPECT_TRUE(seen == content);
  EXPECT_TRUE(S_ISFIFO(status("pipe").st_mode));
}

// A link of one's own to it stands for the device: a test that fails is not to cost this machine its node.
TEST_P(BothWays, OntoADevice) {
  write("a", "x");
  fs::create_symlink("/dev/null", in("null"));
  fs::create_symlink("/dev/full", in("full"));
  const mode_t before = fs::exists("/dev/null") ? [] {
    struct stat status {};
    ::stat("/dev/null", &status);
    return status.st_mode;
  }() : 0;
  EXPECT_TRUE(copy("a", "null").all());
  EXPECT_THAT(copy("a", "full").error, HasSubstr("No space left"));
  struct stat after {};
  ASSERT_EQ(::stat("/dev/null", &after), 0);
  EXPECT_EQ(after.st_mode, before);
}

TEST_P(BothWays, OntoASocket) {
  write("a", "x");
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ASSERT_LT(in("socket").size(), sizeof address.sun_path);
  std::strcpy(address.sun_path, in("socket").c_str());
  ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  EXPECT_THAT(copy("a", "socket").error, HasSubstr("socket: No such device"));
  EXPECT_TRUE(S_ISSOCK(status("socket").st_mode));
  // And what cannot be copied is named, and no failure.
  fs::create_directory(in("src"));
  fs::rename(in("socket"), in("src/socket"));
  write("src/file", "x");
  const Copied copied = copy("src", "to");
  EXPECT_EQ(copied.error, "");
  EXPECT_TRUE(copied.failed.empty());
  EXPECT_THAT(copied.left_out, ElementsAre(HasSubstr("src/socket: left out, being a socket")));
  EXPECT_EQ(read("to/file"), "x");
  EXPECT_THAT(copy("src/socket", "other").error, HasSubstr("No such device"));
}

TEST_P(BothWays, AFileThatIsThereStaysTheSameFile) {
  write("a", "new");
  ::chmod(in("a").c_str(), 0755);
  set_time(in("a"), 1'000'000'000, 5);
  write("b", "old and longer");
  ::chmod(in("b").c_str(), 0640);
  ASSERT_EQ(::link(in("b").c_str(), in("other").c_str()), 0);
  const ino_t inode = status("b").st_ino;
  EXPECT_TRUE(copy("a", "b").all());
  EXPECT_EQ(status("b").st_ino, inode);
  EXPECT_EQ(read("other"), "new");
  EXPECT_EQ(mode("b"), 0640u);
  EXPECT_EQ(status("b").st_mtim.tv_sec, 1'000'000'000);
  // One that is not to be written gives way.
  ::chmod(in("b").c_str(), 0444);
  write("a", "newer");
  EXPECT_TRUE(copy("a", "b").all());
  EXPECT_EQ(read("b"), "newer");
}

TEST_P(BothWays, AProgramThatRunsGivesWay) {
  fs::copy_file("/bin/sleep", in("program"));
  write("a", "new");
  const pid_t child = ::fork();
  if (child == 0) {
    ::execl(in("program").c_str(), "program", "1000", nullptr);
    ::_exit(1);
  }
  // Until it runs, the file can be written to.
  while (fs::read_symlink("/proc/" + std::to_string(child) + "/exe") != in("program"))
    std::this_thread::yield();
  const Copied copied = copy("a", "program");
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(copied.all()) << copied;
  EXPECT_EQ(read("program"), "new");
}

// --- files whose size says nothing ---------------------------------------------------------------------

TEST_P(BothWays, FilesOfProcAndSys) {
  EXPECT_TRUE(copy("/proc/version", "version").all());
  EXPECT_THAT(read("version"), testing::StartsWith("Linux version"));
  // Its size is a page, its content a line.
  EXPECT_TRUE(copy("/sys/kernel/mm/transparent_hugepage/enabled", "enabled").all());
  EXPECT_THAT(read("enabled"), testing::EndsWith("\n"));
  EXPECT_LT(fs::file_size(in("enabled")), 100u);
  EXPECT_EQ(mode("enabled"), 0644u);
  const Copied copied = copy("/proc/self/net", "net");
  EXPECT_EQ(copied.error, "");
  EXPECT_THAT(read("net/dev"), HasSubstr("Inter-"));
}

TEST_P(BothWays, FromAFifoAndADevice) {
  ASSERT_EQ(::mkfifo(in("pipe").c_str(), 0640), 0);
  const std::string content(200'000, 'y');
  std::thread writer([&] { write("pipe", content); });
  EXPECT_TRUE(copy("pipe", "file").all());
  writer.join();
  EXPECT_TRUE(read("file") == content);
  EXPECT_TRUE(copy("/dev/null", "empty").all());
  EXPECT_TRUE(S_ISREG(status("empty").st_mode));
  EXPECT_EQ(fs::file_size(in("empty")), 0u);
}

// --- what is kept --------------------------------------------------------------------------------------

TEST_P(BothWays, AFolderWithAllThatIsInIt) {
  fs::create_directories(in("tree/deep/er"));
  fs::create_directory(in("tree/empty"));
  write("tree/deep/er/file", "content");
  fs::create_symlink("deep/er/file", in("tree/link"));
  fs::create_symlink("nowhere at all", in("tree/dangling"));
  ASSERT_EQ(::mkfifo(in("tree/pipe").c_str(), 0600), 0);
  ::chmod(in("tree/pipe").c_str(), 0622);
  const Copied copied = copy("tree", "copy");
  EXPECT_TRUE(copied.all()) << copied;
  EXPECT_EQ(read("copy/deep/er/file"), "content");
  EXPECT_EQ(fs::read_symlink(in("copy/link")), "deep/er/file");
  EXPECT_EQ(fs::read_symlink(in("copy/dangling")), "nowhere at all");
  EXPECT_TRUE(fs::is_directory(in("copy/empty")));
  EXPECT_TRUE(S_ISFIFO(status("copy/pipe").st_mode));
  EXPECT_EQ(mode("copy/pipe"), 0622u);
  // Once more over what is there by now.
  EXPECT_TRUE(copy("tree/.", "copy").all());
  EXPECT_EQ(fs::read_symlink(in("copy/link")), "deep/er/file");
}

TEST_P(BothWays, AllBitsOfModes) {
  fs::create_directories(in("tree/sticky"));
  fs::create_directory(in("tree/group"));
  write("tree/setuid", "x");
  write("tree/secret", "x");
  const std::pair<const char*, mode_t> all[] = {
      {"/setuid", 04755}, {"/secret", 0400}, {"/sticky", 01777}, {"/group", 02775}};
  for (const auto& [name, bits] : all) ASSERT_EQ(::chmod(in(std::string("tree") + name).c_str(), bits), 0);
  EXPECT_TRUE(copy("tree", "copy").all());
  for (const auto& [name, bits] : all) EXPECT_EQ(mode(std::string("copy") + name), bits) << name;
}

TEST_P(BothWays, TimesToTheNanosecond) {
  fs::create_directories(in("tree/folder"));
  write("tree/folder/file", "x");
  write("tree/old", "x");
  fs::create_symlink("folder", in("tree/link"));
  set_time(in("tree/folder/file"), 1'000'000'000, 123'456'789);
  set_time(in("tree/old"), -1'000'000'000, 5);
  set_time(in("tree/link"), 1'000'000'001, 987'654'321);
  set_time(in("tree/folder"), 1'000'000'002, 1);
  set_time(in("tree"), 1'000'000'003, 999'999'999);
  EXPECT_TRUE(copy("tree", "copy").all());
  for (const char* name : {"", "/folder", "/folder/file", "/link", "/old"}) {
    const timespec was = status(std::string("tree") + name).st_mtim;
    const timespec is = status(std::string("copy") + name).st_mtim;
    EXPECT_EQ(is.tv_sec, was.tv_sec) << name;
    EXPECT_EQ(is.tv_nsec, was.tv_nsec) << name;
  }
}

// Also where its owner may not write, which is for when all is in it.
TEST_P(BothWays, FoldersKeepTheirModesAndTimes) {
  fs::create_directories(in("tree/closed/deeper"));
  fs::create_directory(in("tree/open"));
  write("tree/closed/deeper/file", "content");
  write("tree/closed/file", "content");
  const std::pair<const char*, mode_t> folders[] = {
      {"/closed/deeper", 0500}, {"/closed", 0555}, {"/open", 0777}, {"", 0751}};
  for (const auto& [name, bits] : folders) {
    set_time(in(std::string("tree") + name), 1'000'000'000, 0);
    ASSERT_EQ(::chmod(in(std::string("tree") + name).c_str(), bits), 0);
  }
  EXPECT_TRUE(copy("tree", "copy").all());
  for (const auto& [name, bits] : folders) {
    EXPECT_EQ(mode(std::string("copy") + name), bits) << name;
    EXPECT_EQ(status(std::string("copy") + name).st_mtim.tv_sec, 1'000'000'000) << name;
  }
  EXPECT_EQ(read("copy/closed/deeper/file"), "content");
}

TEST_P(BothWays, HardLinks) {
  fs::create_directories(in("tree/a"));
  fs::create_directory(in("tree/b"));
  write("tree/a/one", "content");
  fs::create_hard_link(in("tree/a/one"), in("tree/b/two"));
  fs::create_hard_link(in("tree/a/one"), in("tree/three"));
  // Another name outside of what is copied makes no difference.
  write("tree/outside", "y");
  fs::create_hard_link(in("tree/outside"), in("elsewhere"));
  for (int pass = 0; pass < 2; ++pass) {
    const Copied copied = copy("tree/.", "copy");
    EXPECT_TRUE(copied.all()) << copied;
    EXPECT_EQ(status("copy/a/one").st_nlink, 3u);
    EXPECT_EQ(status("copy/b/two").st_ino, status("copy/a/one").st_ino);
    EXPECT_EQ(status("copy/three").st_ino, status("copy/a/one").st_ino);
    EXPECT_EQ(status("copy/outside").st_nlink, 1u);
    EXPECT_EQ(read("copy/three"), "content");
  }
}

// What are two files there may have been one here; neither is to get the other's content.
TEST_P(BothWays, TwoFilesOntoTwoNamesOfOne) {
  fs::create_directory(in("tree"));
  write("tree/a", "content of a");
  write("tree/b", "content of b");
  fs::create_directory(in("to"));
  write("to/a", "old");
  fs::create_hard_link(in("to/a"), in("to/b"));
  EXPECT_TRUE(copy("tree/.", "to").all());
  EXPECT_EQ(read("to/a"), "content of a");
  EXPECT_EQ(read("to/b"), "content of b");
}

TEST_P(BothWays, Holes) {
  const int fd = ::open(in("sparse").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_GE(fd, 0);
  constexpr off_t kMib = off_t{1} << 20;
  ASSERT_EQ(::pwrite(fd, "begin", 5, 3 * kMib), 5);
  ASSERT_EQ(::pwrite(fd, "middle", 6, 500 * kMib), 6);
  ASSERT_EQ(::ftruncate(fd, 1024 * kMib), 0);
  ::close(fd);
  EXPECT_TRUE(copy("sparse", "copy").all());
  EXPECT_EQ(fs::file_size(in("copy")), uint64_t{1024} << 20);
  EXPECT_LT(status("copy").st_blocks, 4 * kMib / 512);
  std::ifstream file(in("copy"));
  std::string text(6, '\0');
  file.seekg(3 * kMib).read(text.data(), 5);
  EXPECT_EQ(text.substr(0, 5), "begin");
  file.seekg(500 * kMib).read(text.data(), 6);
  EXPECT_EQ(text, "middle");
  // Over a file that is there and full, and into what has no holes.
  write("full", std::string(2 << 20, 'x'));
  ASSERT_EQ(::truncate(in("sparse").c_str(), 4 * kMib), 0);
  EXPECT_TRUE(copy("sparse", "full").all());
  std::string content(4 * kMib, '\0');
  content.replace(3 * kMib, 5, "begin");
  EXPECT_TRUE(read("full") == content);
  ASSERT_EQ(::mkfifo(in("pipe").c_str(), 0600), 0);
  std::string seen;
  std::thread reader([&] { seen = read("pipe"); });
  EXPECT_TRUE(copy("sparse", "pipe").all());
  reader.join();
  EXPECT_TRUE(seen == content);
}

// Deeper than a path may be long, with fewer descriptors than that.
TEST_P(BothWays, AnyDepth) {
  const std::string part(200, 'd');
  constexpr int kDepth = 300;
  const std::string build = "cd " + in("") + " && mkdir tree && cd tree && i=0 && while [ $i -lt " +
                            std::to_string(kDepth) + " ]; do mkdir -m 755 " + part +
                            " && echo before > 1 && echo after > z && cd -P " + part +
                            " || exit 1; i=$((i+1)); done; echo bottom > file";
  ASSERT_EQ(::system(build.c_str()), 0);
  const Copied copied = copy("tree", "copy");
  EXPECT_TRUE(copied.all()) << copied;
  const std::string look = "cd " + in("copy") + " && i=0 && while [ $i -lt " + std::to_string(kDepth) +
                           " ]; do [ $(cat 1)$(cat z) = beforeafter ] && cd -P " + part +
                           " || exit 1; i=$((i+1)); done; [ $(cat file) = bottom ]";
  EXPECT_EQ(::system(look.c_str()), 0);
}

TEST_P(BothWays, OwnersWhenAskedFor) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give files away";
  fs::create_directory(in("tree"));
  write("tree/file", "x");
  fs::create_symlink("file", in("tree/link"));
  for (const char* name : {"tree", "tree/file", "tree/link"})
    ASSERT_EQ(::lchown(in(name).c_str(), 12345, 678), 0);
  ASSERT_EQ(::chmod(in("tree/file").c_str(), 06755), 0);
  EXPECT_TRUE(copy("tree", "ours").all());
  EXPECT_TRUE(copy("tree", "kept", true).all());
  for (const char* name : {"", "/file", "/link"}) {
    EXPECT_EQ(status(std::string("ours") + name).st_uid, 0u) << name;
    EXPECT_EQ(status(std::string("kept") + name).st_uid, 12345u) << name;
    EXPECT_EQ(status(std::string("kept") + name).st_gid, 678u) << name;
  }
  EXPECT_EQ(mode("kept/file"), 06755u);
}

// --- what goes wrong ------------------------------------------------------------------------------------

TEST_P(BothWays, ErrorsNameTheFile) {
  write("a", "x");
  EXPECT_THAT(copy("missing", "b").error, HasSubstr("missing: No such file"));
  EXPECT_THAT(copy("a", "no/such/place").error, HasSubstr("no/such/place"));
  EXPECT_THAT(copy("a", "a/b").error, HasSubstr("Not a directory"));
}

// What vanishes while a tree is read is named, and the rest arrives.
TEST_F(CopyTest, WhatVanishesIsNamedAndTheRestArrives) {
  fs::create_directory(in("tree"));
  // Each longer than what is read at once.
  for (const char* name : {"a", "b", "c"}) write(std::string("tree/") + name, std::string(128 << 10, *name));
  protocol::TreeReader reader;
  ASSERT_TRUE(reader.open(in("tree")));
  std::string frames;
  ASSERT_TRUE(reader.next(frames));
  // One is begun. The names of all of them are known: a folder that small is listed at once.
  size_t removed = 0;
  for (const char* name : {"a", "b", "c"})
    if (frames.find(std::string(100, *name)) == std::string::npos)
      removed += static_cast<size_t>(::unlink(in(std::string("tree/") + name).c_str()) == 0);
  ASSERT_EQ(removed, 2u);
  while (reader.next(frames)) continue;
  EXPECT_EQ(reader.error(), "");
  std::vector<std::string> named;
  for (const auto& problem : reader.take_problems()) named.push_back(problem.text);
  EXPECT_THAT(named, testing::Each(HasSubstr(": No such file or directory")));
  EXPECT_EQ(named.size(), 2u);
  EXPECT_GT(frames.size(), size_t{128} << 10) << "the one that was begun is whole";
}

// Deeper than folders are held open: ".." of one that is gone leads nowhere, the way down does.
TEST_F(CopyTest, AFolderThatVanishesBelowIsNotTheEndOfAll) {
  std::string path = "tree";
  for (int i = 0; i < 100; ++i) path += "/d";
  fs::create_directories(in(path));
  write("tree/d/d/file", "there");
  write(path + "/first", std::string(128 << 10, 'x'));
  protocol::TreeReader reader;
  ASSERT_TRUE(reader.open(in("tree")));
  std::string frames;
  while (frames.find("xxxx") == std::string::npos) ASSERT_TRUE(reader.next(frames));
  fs::remove_all(in("tree/d/d/d"));
  while (reader.next(frames)) continue;
  EXPECT_EQ(reader.error(), "");
  EXPECT_THAT(frames, HasSubstr("there"));
}

// Files that can only be written stand for those that this user may not read, since root may read everything.
TEST_P(BothWays, TheRestOfALiveTreeArrives) {
  // Some of it can only be written.
  const Copied settings = copy("/proc/sys/vm", "settings");
  EXPECT_EQ(settings.error, "");
  EXPECT_THAT(settings.failed, testing::Contains(HasSubstr("/proc/sys/vm/drop_caches")));
  for (const std::string& text : settings.failed) EXPECT_THAT(text, HasSubstr("/proc/sys/vm/"));
  EXPECT_THAT(read("settings/overcommit_memory"), testing::AnyOf("0\n", "1\n", "2\n"));
}

TEST_P(BothWays, WhatMayNotBeRead) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  fs::create_directories(in("tree/closed"));
  write("tree/a", "a");
  write("tree/m", "m");
  write("tree/z", "z");
  ::chmod(in("tree/m").c_str(), 0);
  ::chmod(in("tree/closed").c_str(), 0);
  const Copied copied = copy("tree", "copy");
  EXPECT_EQ(copied.error, "");
  EXPECT_THAT(copied.failed, testing::UnorderedElementsAre(HasSubstr("tree/m: Permission denied"),
                                                           HasSubstr("tree/closed: Permission denied")));
  EXPECT_EQ(read("copy/a") + read("copy/z"), "az");
}

TEST_P(BothWays, WhatMayNotBeWritten) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write everything";
  fs::create_directories(in("tree/closed"));
  write("tree/closed/file", "x");
  write("tree/z", "z");
  fs::create_directories(in("to/closed"));
  ::chmod(in("to/closed").c_str(), 0500);
  const Copied copied = copy("tree/.", "to");
  EXPECT_EQ(copied.error, "");
  EXPECT_THAT(copied.failed, ElementsAre(HasSubstr("to/closed/file: Permission denied")));
  EXPECT_EQ(read("to/z"), "z");
}

// What cannot be read to its end is not there afterwards, and what was there stays whole or is named.
TEST_P(BothWays, AFileThatBreaksOffLeavesNothing) {
  // Reading it is an I/O error, at the first byte.
  const Copied copied = copy("/proc/self/mem", "mem");
  EXPECT_EQ(copied.error, "");
  EXPECT_THAT(copied.failed, ElementsAre(HasSubstr("/proc/self/mem: Input/output error")));
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_P(BothWays, NamesOfAllKinds) {
  fs::create_directory(in("tree"));
  const std::string longest(255, 'n');
  for (const std::string& name : {std::string("a\nb"), std::string("\xff\x01"), std::string(" "), longest})
    write("tree/" + name, name);
  EXPECT_TRUE(copy("tree", "copy").all());
  for (const std::string& name : {std::string("a\nb"), std::string("\xff\x01"), std::string(" "), longest})
    EXPECT_EQ(read("copy/" + name), name);
}

}  // namespace
}  // namespace snug::test
