// What a hostile end of a copy could try: to have something written outside of its destination, to leave half
// of something, to go on for ever.
#include <fcntl.h>
#include <sys/socket.h>

#include <filesystem>
#include <functional>

#include "tests/unit/agent/copy_fixture.h"
#include "vmm/protocol/messages.h"
#include "vmm/protocol/tree_reader.h"
#include "vmm/protocol/tree_writer.h"

namespace snug::test {
namespace {

namespace fs = std::filesystem;
using protocol::Entry;
using protocol::EntryKind;
using protocol::FrameType;
using protocol::TreeWriter;
using testing::HasSubstr;

Entry entry(EntryKind kind, const std::string& name, const std::string& target = "") {
  Entry one;
  one.kind = kind;
  one.mode = 0755;
  one.name = name;
  one.target = target;
  return one;
}

// Frames, one behind the other.
struct Said {
  std::string bytes;
  Said& folder(const std::string& name) { return add(entry(EntryKind::kFolder, name)); }
  Said& file(const std::string& name, const std::string& content = "", bool ends = true) {
    add(entry(EntryKind::kFile, name));
    if (!content.empty()) put_frame(bytes, FrameType::kData, content, protocol::kCopy);
    if (ends) protocol::put_file_end(bytes, true);
    return *this;
  }
  Said& link(const std::string& name, const std::string& target) {
    return add(entry(EntryKind::kLink, name, target));
  }
  Said& hard_link(const std::string& name, const std::string& target) {
    return add(entry(EntryKind::kHardLink, name, target));
  }
  Said& leave() { return put_frame(bytes, FrameType::kLeave), *this; }
  Said& end() { return put_frame(bytes, FrameType::kEnd, {}, protocol::kCopy), *this; }
  Said& frame(FrameType type, const std::string& payload = "", uint8_t channel = 0) {
    return put_frame(bytes, type, payload, channel), *this;
  }
  Said& add(const Entry& one) { return put_entry(bytes, one), *this; }
};

class HostileCopyTest : public CopyTest {
 protected:
  struct Taken {
    bool done = false;
    std::string error;
    std::vector<std::string> problems;
  };
  Taken take(const Said& said, const std::string& to = "inside", const std::string& name = "root") {
    fs::create_directories(in("inside"));
    Taken taken;
    TreeWriter writer(in(to), name, TreeWriter::Owners::kOurs, TreeWriter::Sender::kGuest);
    protocol::FrameReader reader;
    reader.feed(said.bytes);
    while (const auto frame = reader.next())
      if (!writer.take(*frame)) break;
    for (const protocol::Problem& problem : writer.take_problems()) taken.problems.push_back(problem.text);
    taken.done = writer.done();
    taken.error = writer.error();
    return taken;
  }
  // All of it was carried out.
  bool goes_well(const Said& said) {
    const Taken taken = take(said);
    return taken.done && taken.problems.empty();
  }
};

TEST_F(HostileCopyTest, NamesThatLeadElsewhereAreRefused) {
  ASSERT_TRUE(goes_well(Said().folder("").file("a", "x").leave().end()));
  for (const char* name : {"..", ".", "/", "/outside", "../outside", "a/b", "a/", ""}) {
    EXPECT_FALSE(take(Said().folder("").file(name)).error.empty()) << name;
    EXPECT_FALSE(take(Said().folder("").folder(name)).error.empty()) << name;
    EXPECT_FALSE(take(Said().folder("").link(name, "x")).error.empty()) << name;
  }
  EXPECT_FALSE(take(Said().folder("").file(std::string("a\0b", 3))).error.empty());
  EXPECT_FALSE(take(Said().folder("").file(std::string(256, 'x'))).error.empty());
  EXPECT_FALSE(take(Said().folder("").leave().leave()).error.empty());
  EXPECT_FALSE(take(Said().folder("").leave().file("outside")).error.empty());
  EXPECT_FALSE(take(Said().folder("").leave().folder("outside")).error.empty());
  EXPECT_THAT(fs::directory_iterator(folder_)->path().filename(), "inside");
}

TEST_F(HostileCopyTest, LinksAreNotFollowed) {
  fs::create_directory(in("outside"));
  write("outside/file", "mine");
  for (const std::string& way : {in("outside"), std::string(".."), std::string("../../outside")}) {
    const Taken taken =
        take(Said().folder("").link("way", way).folder("way").file("new", "x").leave().leave().end());
    EXPECT_TRUE(taken.done);
    EXPECT_THAT(taken.problems, testing::ElementsAre(HasSubstr("way: Not a directory")));
  }
  // In place of a link comes the file; what it pointed at stays as it is.
  EXPECT_TRUE(goes_well(Said().folder("").link("f", in("outside/file")).file("f", "bad").leave().end()));
  EXPECT_EQ(read("outside/file"), "mine");
  EXPECT_FALSE(fs::is_symlink(in("inside/root/f")));
  EXPECT_EQ(fs::exists(in("outside/new")), false);
  EXPECT_EQ(fs::exists(in("inside/new")), false);
}

// The link that leads out comes with one copy, the file with the next.
TEST_F(HostileCopyTest, ASecondCopyIsNotLedAstrayByTheFirst) {
  write("mine", "mine");
  ASSERT_TRUE(goes_well(Said().folder("").link("file", in("mine")).link("tree", folder_).leave().end()));
  const Taken file = take(Said().file("", "bad").end(), "inside/root", "file");
  EXPECT_THAT(file.error, HasSubstr("inside/root/file: not a plain file"));
  const Taken tree = take(Said().folder("").file("new", "bad").leave().end(), "inside/root", "tree");
  EXPECT_THAT(tree.error, HasSubstr("inside/root/tree: Not a directory"));
  EXPECT_EQ(read("mine"), "mine");
  EXPECT_FALSE(fs::exists(in("new")));
  ASSERT_EQ(::mkfifo(in("inside/root/pipe").c_str(), 0600), 0);
  EXPECT_THAT(take(Said().file("", "x").end(), "inside/root", "pipe").error, HasSubstr("not a plain file"));
}

// What was named comes as a file or as a folder, or a name that was given for one would be a link out.
TEST_F(HostileCopyTest, WhatIsNamedIsAFileOrAFolder) {
  EXPECT_FALSE(take(Said().link("", in("mine")).end()).error.empty());
  EXPECT_FALSE(take(Said().add(entry(EntryKind::kFifo, "")).end()).error.empty());
  EXPECT_FALSE(take(Said().hard_link("", "a").end()).error.empty());
  EXPECT_TRUE(fs::is_empty(in("inside")));
}

TEST_F(HostileCopyTest, HardLinksLeadNowhereElse) {
  fs::create_directory(in("outside"));
  write("outside/file", "mine");
  for (const char* target : {"../outside/file", "a/../../outside/file", "/etc/passwd", "", "a//b", "."})
    EXPECT_FALSE(take(Said().folder("").hard_link("way", target)).error.empty()) << target;
  const Taken taken = take(Said()
                               .folder("")
                               .link("way", in("outside"))
                               .hard_link("one", "way/file")
                               .link("to-file", in("outside/file"))
                               .hard_link("two", "to-file")
                               .hard_link("three", "not/there")
                               .leave()
                               .end());
  EXPECT_TRUE(taken.done);
  EXPECT_EQ(taken.problems.size(), 3u);
  struct stat status {};
  ASSERT_EQ(::stat(in("outside/file").c_str(), &status), 0);
  EXPECT_EQ(status.st_nlink, 1u);
}

// What is neither file nor link is not the sender's to write into or to take away.
TEST_F(HostileCopyTest, FifosOfATreeAreLeftAlone) {
  fs::create_directories(in("inside/root"));
  ASSERT_EQ(::mkfifo(in("inside/root/pipe").c_str(), 0600), 0);
  for (const Said& said : {Said().folder("").file("pipe", "x").leave().end(),
                           Said().folder("").link("pipe", "x").leave().end()}) {
    const Taken taken = take(said);
    EXPECT_TRUE(taken.done);
    EXPECT_EQ(taken.problems.size(), 1u);
    EXPECT_TRUE(S_ISFIFO(status("inside/root/pipe").st_mode));
  }
}

// One that is complete has its mode for good; one that was there is left as it was.
TEST_F(HostileCopyTest, ModesComeWithTheEndOfAFolder) {
  Entry closed = entry(EntryKind::kFolder, "a");
  closed.mode = 0;
  EXPECT_TRUE(goes_well(Said().folder("").add(closed).file("b").leave().file("c").leave().end()));
  EXPECT_EQ(mode("inside/root/a"), 0u);
  ::chmod(in("inside/root/a").c_str(), 0711);
  EXPECT_TRUE(goes_well(Said().folder("").add(closed).file("b").leave().leave().end()));
  EXPECT_EQ(mode("inside/root/a"), 0711u);
  // Of a copy cut short as well: it may be copied again.
  take(Said().folder("").folder("cut").file("b", "x", false));
  EXPECT_EQ(mode("inside/root/cut"), 0755u);
}

TEST_F(HostileCopyTest, WhatIsCutShortIsNotThere) {
  const std::string half(1000, 'x');
  take(Said().folder("").file("half", half, false));
  EXPECT_TRUE(fs::is_empty(in("inside/root")));
  take(Said().file("", half, false), "inside", "file");
  EXPECT_FALSE(fs::exists(in("inside/file")));
  // The sender could not read on.
  Said broken = Said().folder("").file("half", half, false);
  protocol::put_file_end(broken.bytes, false);
  EXPECT_TRUE(goes_well(broken.file("next", "x").leave().end()));
  EXPECT_EQ(read("inside/root/next"), "x");
  EXPECT_EQ(std::distance(fs::directory_iterator(in("inside/root")), {}), 1);
}

TEST_F(HostileCopyTest, Order) {
  const std::string number = protocol::Encoder().u64(5).bytes();
  const std::string most = protocol::Encoder().u64(UINT64_MAX).bytes();
  for (const Said& said : {Said().file("a"),
                           Said().folder("").folder(""),
                           Said().file("", "x").file("a"),
                           Said().end(),
                           Said().leave(),
                           Said().folder("").end(),
                           Said().file("", "x", false).end(),
                           Said().folder("").file("b", "x", false).file("c"),
                           Said().folder("").file("b", "x", false).leave(),
                           Said().frame(FrameType::kData, "x", 3),
                           Said().folder("").frame(FrameType::kData, "x", 3),
                           Said().file("", "", false).frame(FrameType::kData, "", 3),
                           Said().file("", "", false).frame(FrameType::kData, "x", 1),
                           Said().file("", "", false).frame(FrameType::kHole, "short"),
                           Said().file("", "", false).frame(FrameType::kHole, std::string(8, '\0')),
                           Said().file("", "", false).frame(FrameType::kFileEnd, "\2"),
                           Said().folder("").frame(FrameType::kHole, number),
                           Said().folder("").frame(FrameType::kFileEnd, std::string(1, '\0')),
                           Said().file("", "x", false).frame(FrameType::kHole, most),
                           Said().folder("").leave().frame(FrameType::kExit, "\0\0")}) {
    const Taken taken = take(said);
    EXPECT_FALSE(taken.done);
    EXPECT_FALSE(taken.error.empty());
  }
}

TEST_F(HostileCopyTest, HolesBeyondWhatAFileCanBe) {
  const auto hole = [](uint64_t length) { return protocol::Encoder().u64(length).bytes(); };
  for (const auto& [first, second] : {std::pair<uint64_t, uint64_t>{INT64_MAX, INT64_MAX}, {UINT64_MAX, 1}}) {
    Said said = Said().folder("").file("big", "x", false).frame(FrameType::kHole, hole(first));
    said.frame(FrameType::kHole, hole(second)).frame(FrameType::kData, "x", protocol::kCopy);
    protocol::put_file_end(said.bytes, true);
    const Taken taken = take(said.file("next", "x").leave().end());
    EXPECT_TRUE(taken.done);
    EXPECT_THAT(taken.problems, testing::ElementsAre(HasSubstr("big: File too large")));
    EXPECT_FALSE(fs::exists(in("inside/root/big")));
    EXPECT_EQ(read("inside/root/next"), "x");
  }
}

// Descriptors do not grow with the depth, and the depth has an end.
TEST_F(HostileCopyTest, FoldersWithoutEnd) {
  fs::create_directories(in("inside"));
  TreeWriter writer(in("inside"), "root", TreeWriter::Owners::kOurs, TreeWriter::Sender::kGuest);
  const auto say = [&](const Said& said) {
    protocol::FrameReader reader;
    reader.feed(said.bytes);
    return writer.take(*reader.next());
  };
  ASSERT_TRUE(say(Said().folder("")));
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(say(Said().folder("d")));
  const auto open = std::distance(fs::directory_iterator("/proc/self/fd"), {});
  EXPECT_LT(open, 100);
  for (int i = 0; i < 70'000; ++i) ASSERT_TRUE(say(Said().folder("d")));
  const auto problems = writer.take_problems();
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_THAT(problems[0].text, HasSubstr("Too many levels"));
}

// Names of the guest's choice come to the terminal in messages.
TEST_F(HostileCopyTest, NamesInMessagesAreHarmless) {
  fs::create_directories(in("inside/root/\x1b[2J"));
  const Taken taken = take(Said().folder("").file("\x1b[2J", "x").leave().end());
  ASSERT_EQ(taken.problems.size(), 1u);
  EXPECT_EQ(taken.problems[0].find('\x1b'), std::string::npos);
}

// Somebody else of this machine exchanges a folder for a link while it is filled.
TEST_F(HostileCopyTest, AFolderThatIsMovedAwayIsNotFollowed) {
  fs::create_directories(in("inside"));
  TreeWriter writer(in("inside"), "root", TreeWriter::Owners::kOurs, TreeWriter::Sender::kGuest);
  const auto say = [&](const Said& said) {
    protocol::FrameReader reader;
    reader.feed(said.bytes);
    bool good = true;
    while (const auto frame = reader.next()) good = writer.take(*frame) && good;
    return good;
  };
  ASSERT_TRUE(say(Said().folder("").folder("a")));
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(say(Said().folder("d")));
  // The folders of the way down are closed by now; the one below is in another place.
  fs::create_directory(in("elsewhere"));
  fs::rename(in("inside/root/a/d"), in("elsewhere/d"));
  bool good = true;
  for (int i = 0; i < 50 && good; ++i) good = say(Said().leave());
  EXPECT_FALSE(good);
  EXPECT_THAT(writer.error(), HasSubstr("moved while it was copied"));
  EXPECT_EQ(std::distance(fs::directory_iterator(in("elsewhere")), {}), 1);
}

// --- a client and an agent of different age --------------------------------------------------------------

class AgeTest : public CopyTest {
 protected:
  // What the client says to an agent that has said this.
  std::string against(const std::string& said) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    const UniqueFd far(ends[1]);
    EXPECT_EQ(::send(far.get(), said.data(), said.size(), 0), static_cast<ssize_t>(said.size()));
    ::shutdown(far.get(), SHUT_WR);
    write("a", "x");
    const auto done = copy_to_guest(UniqueFd(ends[0]), in("a"), "/b", {});
    return done ? "" : done.error().message + "\n" + done.error().hint;
  }
};

TEST_F(AgeTest, AnOlderAgentIsNamedAsSuch) {
  std::string old, newer;
  protocol::put_hello(old, {1, 1});
  protocol::put_hello(newer, {9, 9});
  EXPECT_THAT(against(old), HasSubstr("the agent in this guest is older than this snug"));
  EXPECT_THAT(against(newer), HasSubstr("speaks something else"));
}

TEST_F(AgeTest, AnOlderClientIsToldSoAndRunsCommandsAllTheSame) {
  const auto answer_to = [](const std::string& bytes) {
    const UniqueFd agent = connect_agent();
    EXPECT_EQ(::send(agent.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
    ::shutdown(agent.get(), SHUT_WR);
    std::string answer;
    std::array<char, 4096> buffer;
    for (ssize_t count; (count = ::recv(agent.get(), buffer.data(), buffer.size(), 0)) > 0;)
      answer.append(buffer.data(), static_cast<size_t>(count));
    return answer;
  };
  std::string hello, copy, ping;
  protocol::put_hello(hello, {1, 1});
  copy = ping = hello;
  protocol::put_get(copy, "/etc/passwd");
  put_frame(ping, FrameType::kPing, "?");
  std::string expected = hello;
  put_frame(expected, FrameType::kDone, "?");
  EXPECT_EQ(answer_to(ping), expected);
  EXPECT_THAT(answer_to(copy), HasSubstr("this snug, which is older"));
}

// Problems while the client still sends: neither waits for the other.
TEST_F(AgeTest, ProblemsWithoutEnd) {
  std::string said;
  protocol::put_hello(said, {protocol::kVersion, protocol::kVersion});
  for (int i = 0; i < 500; ++i) protocol::put_problem(said, {false, "x"});
  EXPECT_THAT(against(said), HasSubstr("closed the connection"));
  // All that are sent come through, to an agent that cannot place anything.
  fs::create_directories(in("tree"));
  for (int i = 0; i < 3000; ++i) {
    write("tree/" + std::to_string(i), "x");
    fs::create_directories(in("to/" + std::to_string(i)));
  }
  EXPECT_EQ(copy(Way::kPut, "tree/.", "to").failed.size(), 3000u);
  EXPECT_EQ(copy(Way::kGet, "tree/.", "to").failed.size(), 3000u);
}

}  // namespace
}  // namespace snug::test
