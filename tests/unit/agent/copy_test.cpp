// Copies through the client and the real agent, and what a hostile end of one could try.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "tests/unit/agent/fixture.h"
#include "vmm/agent/copy.h"
#include "vmm/protocol/tree_writer.h"

namespace snug::test {
namespace {

namespace fs = std::filesystem;
using protocol::Entry;
using protocol::EntryKind;
using testing::HasSubstr;

class CopyTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "snug-copy-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string in(const std::string& name) const { return folder_ + "/" + name; }
  void write(const std::string& name, const std::string& content) { std::ofstream(in(name)) << content; }
  std::string read(const std::string& name) const {
    std::ifstream file(in(name));
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  std::string folder_;
};

TEST_F(CopyTest, AFileThereAndBack) {
  const std::string content = std::string(300'000, 'x') + std::string("\0end", 4);
  write("a", content);
  ::chmod(in("a").c_str(), 0741);
  ASSERT_TRUE(copy_to_guest(connect_agent(), in("a"), in("b")));
  ASSERT_TRUE(copy_from_guest(connect_agent(), in("b"), in("c")));
  EXPECT_TRUE(read("c") == content);
  struct stat status {};
  ASSERT_EQ(::stat(in("c").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0741u);
}

TEST_F(CopyTest, IntoAFolderAndOverWhatIsThere) {
  write("a", "new");
  write("e", "");
  fs::create_directory(in("to"));
  write("to/a", "old and longer");
  ASSERT_TRUE(copy_to_guest(connect_agent(), in("a"), in("to")));
  EXPECT_EQ(read("to/a"), "new");
  ASSERT_TRUE(copy_to_guest(connect_agent(), in("e"), in("to/")));
  EXPECT_EQ(fs::file_size(in("to/e")), 0u);
}

TEST_F(CopyTest, AFolderWithAllThatIsInIt) {
  fs::create_directories(in("tree/deep/er"));
  fs::create_directory(in("tree/empty"));
  write("tree/deep/er/file", "content");
  fs::create_symlink("deep/er/file", in("tree/link"));
  ::mkfifo(in("tree/pipe").c_str(), 0600);
  const auto skipped = copy_to_guest(connect_agent(), in("tree"), in("copy"));
  ASSERT_TRUE(skipped) << skipped.error().message;
  EXPECT_EQ(*skipped, 1u);
  EXPECT_EQ(read("copy/deep/er/file"), "content");
  EXPECT_EQ(fs::read_symlink(in("copy/link")), "deep/er/file");
  EXPECT_TRUE(fs::is_directory(in("copy/empty")));
  EXPECT_FALSE(fs::exists(in("copy/pipe")));
  // Again, into the folder this time.
  ASSERT_TRUE(copy_from_guest(connect_agent(), in("tree/"), in("copy")));
  EXPECT_EQ(read("copy/tree/deep/er/file"), "content");
}

// Also where its owner may not write, which is for when all is in it.
TEST_F(CopyTest, FoldersKeepTheirModesAndTimes) {
  fs::create_directories(in("tree/closed/deeper"));
  fs::create_directory(in("tree/open"));
  write("tree/closed/deeper/file", "content");
  write("tree/closed/file", "content");
  const timespec times[] = {{1'000'000'000, 0}, {1'000'000'000, 0}};
  const std::pair<const char*, mode_t> folders[] = {
      {"tree/closed/deeper", 0500}, {"tree/closed", 0555}, {"tree/open", 0777}, {"tree", 0751}};
  for (const auto& [name, mode] : folders) {
    ASSERT_EQ(::utimensat(AT_FDCWD, in(name).c_str(), static_cast<const timespec*>(times), 0), 0);
    ASSERT_EQ(::chmod(in(name).c_str(), mode), 0);
  }
  ASSERT_TRUE(copy_to_guest(connect_agent(), in("tree"), in("there")));
  ASSERT_TRUE(copy_from_guest(connect_agent(), in("there"), in("back")));
  for (const char* copy : {"there", "back"})
    for (const auto& [name, mode] : folders) {
      const std::string path = in(copy + std::string(name).substr(4));
      struct stat status {};
      ASSERT_EQ(::stat(path.c_str(), &status), 0) << path;
      EXPECT_EQ(status.st_mode & 07777, mode) << path;
      EXPECT_EQ(status.st_mtim.tv_sec, 1'000'000'000) << path;
    }
  EXPECT_EQ(read("back/closed/deeper/file"), "content");
  for (const char* copy : {"tree", "there", "back"})
    for (const char* name : {"/closed", "/closed/deeper"})
      ::chmod(in(std::string(copy) + name).c_str(), 0700);
}

TEST_F(CopyTest, ErrorsNameTheFile) {
  write("a", "x");
  const auto missing = copy_to_guest(connect_agent(), in("missing"), in("b"));
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().message, HasSubstr("missing: No such file"));
  const auto nowhere = copy_to_guest(connect_agent(), in("a"), in("no/such/place"));
  ASSERT_FALSE(nowhere);
  EXPECT_THAT(nowhere.error().message, HasSubstr("no/such/place"));
  const auto gone = copy_from_guest(connect_agent(), in("missing"), in("b"));
  ASSERT_FALSE(gone);
  EXPECT_THAT(gone.error().message, HasSubstr("missing: No such file"));
}

// --- a hostile guest ----------------------------------------------------------------------------------

class HostileCopyTest : public CopyTest {
 protected:
  // Whether the writer took the entries.
  bool take(std::initializer_list<Entry> entries) {
    fs::create_directories(in("inside"));
    protocol::TreeWriter writer(in("inside"), "root");
    for (const Entry& entry : entries) {
      std::string bytes;
      put_entry(bytes, entry);
      protocol::FrameReader reader;
      reader.feed(bytes);
      const auto frame = reader.next();
      if (!frame || !writer.take(*frame)) return false;
    }
    return true;
  }
  static Entry folder(const std::string& path) { return {EntryKind::kFolder, 0755, 0, 0, path, ""}; }
  static Entry file(const std::string& path) { return {EntryKind::kFile, 0644, 0, 0, path, ""}; }
  static Entry link(const std::string& path, const std::string& target) {
    return {EntryKind::kLink, 0777, 0, 0, path, target};
  }
};

TEST_F(HostileCopyTest, PathsThatLeadElsewhereAreRefused) {
  ASSERT_TRUE(take({folder(""), file("a")}));
  for (const char* path : {"../outside", "a/../../outside", "/outside", "a//b", "./a", "a/.", "a/"})
    EXPECT_FALSE(take({folder(""), file(path)})) << path;
  EXPECT_FALSE(fs::exists(in("outside")));
  EXPECT_FALSE(fs::exists(in("inside/outside")));
}

TEST_F(HostileCopyTest, LinksAreNotFollowed) {
  fs::create_directory(in("outside"));
  write("outside/file", "mine");
  EXPECT_FALSE(take({folder(""), link("way", in("outside")), file("way/new")}));
  EXPECT_FALSE(take({folder(""), link("way", ".."), file("way/new")}));
  // In place of a link comes the file; what it pointed at stays as it is.
  EXPECT_TRUE(take({folder(""), link("f", in("outside/file")), file("f")}));
  EXPECT_EQ(read("outside/file"), "mine");
  EXPECT_FALSE(fs::is_symlink(in("inside/root/f")));
  EXPECT_FALSE(fs::exists(in("outside/new")));
}

// One that is complete has its mode for good; one that was there is left as it was.
TEST_F(HostileCopyTest, ModesComeWithTheEndOfAFolder) {
  Entry closed = folder("a");
  closed.mode = 0;
  EXPECT_EQ(take({folder(""), closed, file("a/b"), file("c"), file("a/d")}), ::geteuid() == 0);
  struct stat status {};
  ASSERT_EQ(::stat(in("inside/root/a").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0u);
  ::chmod(in("inside/root/a").c_str(), 0711);
  EXPECT_TRUE(take({folder(""), closed, file("a/b"), file("c")}));
  ASSERT_EQ(::stat(in("inside/root/a").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0711u);
}

TEST_F(HostileCopyTest, OrderAndSizes) {
  EXPECT_FALSE(take({file("a")}));
  EXPECT_FALSE(take({file(""), file("a")}));
  EXPECT_FALSE(take({folder(""), folder("")}));
  Entry entry = folder("a");
  entry.size = 1;
  EXPECT_FALSE(take({folder(""), entry}));
  // A second entry while a file is not complete.
  entry = file("b");
  entry.size = 5;
  EXPECT_FALSE(take({folder(""), entry, file("c")}));
}

}  // namespace
}  // namespace snug::test
