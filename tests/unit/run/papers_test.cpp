// What one process of a machine leaves to the next.
#include "vmm/run/papers.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>

#include "vmm/run/handed_ends.h"

namespace snug {
namespace {

using testing::HasSubstr;

Papers some_papers() {
  Papers papers;
  papers.spec = "name: m\n";
  papers.directory = "/tmp/snug-1/m";
  papers.vsock_path = "/tmp/snug-1/m/vsock.sock";
  papers.pid = 77;
  papers.background = papers.commands = true;
  papers.talk = 3;
  papers.kernel = 4;
  papers.initrds = {5, 6};
  papers.disks = {{7, -1}, {8, 9}};
  papers.nics = {{{10, 11}, -1}, {{}, 12}};
  return papers;
}

TEST(Papers, AreReadAsTheyWereWritten) {
  const Papers papers = some_papers();
  const auto read = Papers::parse(papers.text());
  ASSERT_TRUE(read) << read.error().text();
  EXPECT_EQ(read->text(), papers.text());
  EXPECT_EQ(read->descriptors(), (std::vector{3, 4, 5, 6, 7, 8, 9, 10, 11, 12}));
  EXPECT_EQ(read->pid, 77);
  EXPECT_EQ(read->vsock_path, papers.vsock_path);
  EXPECT_TRUE(read->background && read->commands && !read->keep);
}

TEST(Papers, ThatAreNoneAreRefused) {
  const std::string text = some_papers().text();
  for (size_t size = 0; size < text.size(); ++size) EXPECT_FALSE(Papers::parse(text.substr(0, size))) << size;
  for (const char* other : {"[]", "{}", "{\"format\": 1}", "{\"format\": \"1\"}", "7"})
    EXPECT_FALSE(Papers::parse(other)) << other;
  std::string later = text;
  later.replace(later.find("\"format\":1"), 10, "\"format\":9");
  const auto refused = Papers::parse(later);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text(), HasSubstr("of format 9, and this snug knows 1"));
}

TEST(HandedEnds, TakesWhatIsOpenAndNothingElse) {
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  Papers papers;
  papers.kernel = pipe[0];
  papers.disks = {{pipe[1], -1}};
  {
    const auto taken = HandedEnds::take(papers);
    ASSERT_TRUE(taken);
    EXPECT_EQ(taken->kernel.get(), pipe[0]);
    EXPECT_EQ(taken->disks[0].file.get(), pipe[1]);
    EXPECT_FALSE(taken->talk || taken->disks[0].overlay);
    for (const int fd : pipe) EXPECT_EQ(::fcntl(fd, F_GETFD), FD_CLOEXEC);
  }
  EXPECT_EQ(::fcntl(pipe[0], F_GETFD), -1);
  EXPECT_FALSE(HandedEnds::take(papers));
}

TEST(FormerLife, IsReadAsItWasWritten) {
  const FormerLife life{.boots = 3,
                        .updates = 2,
                        .began = 5,
                        .stands_since = FormerLife::now(),
                        .created_at = 7,
                        .commands = "{}"};
  StateWriter writer;
  life.save(writer);
  auto reader = StateReader::parse(writer.finish());
  ASSERT_TRUE(reader);
  const auto read = FormerLife::restore(*reader);
  ASSERT_TRUE(read);
  EXPECT_TRUE(reader->finish());
  EXPECT_EQ(read->boots, 3U);
  EXPECT_EQ(read->updates, 2U);
  EXPECT_EQ(read->began, 5U);
  EXPECT_EQ(read->stands_since, life.stands_since);
  EXPECT_EQ(read->created_at, 7U);
  EXPECT_EQ(read->commands, "{}");
  auto none = StateReader::parse(StateWriter().finish());
  ASSERT_TRUE(none);
  EXPECT_FALSE(FormerLife::restore(*none));
}

}  // namespace
}  // namespace snug
