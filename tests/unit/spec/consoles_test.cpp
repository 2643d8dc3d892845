#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/unit/spec/problems.h"
#include "tests/unit/spec/temp_folder.h"

namespace snug {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Spec spec_of(std::string_view yaml) {
  auto outcome = parse_spec_text(yaml, "vm.yaml", "/specs");
  EXPECT_THAT(texts_of(outcome.problems), IsEmpty());
  return outcome.spec;
}

TEST(Consoles, Forms) {
  EXPECT_TRUE(spec_of("{}").consoles.empty());
  const std::vector<HvcSpec> pty{{{PortKind::kPty, ""}}};
  EXPECT_EQ(spec_of("virtio_consoles: pty").consoles, pty);
  EXPECT_EQ(spec_of("virtio_consoles: [{to: pty}]").consoles, pty);
  EXPECT_EQ(spec_of("virtio_consoles: [pty, 'file:log', {to: 'socket:/run/s'}]").consoles,
            (std::vector<HvcSpec>{
                {{PortKind::kPty, ""}}, {{PortKind::kFile, "/specs/log"}}, {{PortKind::kSocket, "/run/s"}}}));
  EXPECT_THAT(problems_in("virtio_consoles: tty"),
              Contains(HasSubstr("expected pty, file:PATH or socket:PATH")));
  EXPECT_THAT(problems_in("virtio_consoles: 'socket:'"), Contains(HasSubstr("the path is empty")));
}

TEST(Channels, Forms) {
  EXPECT_EQ(spec_of("channels: [{name: org.example.agent, socket: a.sock}]").channels,
            (std::vector<ChannelSpec>{{"org.example.agent", "/specs/a.sock"}}));
  EXPECT_THAT(problems_in("channels: [{name: a/b, socket: s}]"), Contains(HasSubstr("got 'a/b'")));
}

class ChannelFiles : public TempFolder {};

TEST_F(ChannelFiles, FlagsAndMistakes) {
  const auto problems = [](std::vector<std::string> consoles, std::vector<std::string> channels) {
    FlagValues flags;
    flags.by_key["virtio_consoles"] = std::move(consoles);
    flags.by_key["channels"] = std::move(channels);
    return texts_of(load_spec(std::nullopt, flags).problems);
  };
  const std::string at = path("") + "/";
  EXPECT_THAT(problems({"pty", "socket:" + at + "c"}, {"a,socket=" + at + "a", "b,socket=" + at + "b"}),
              IsEmpty());
  EXPECT_THAT(problems({}, {"a"}), ElementsAre(HasSubstr("channels[0]: socket is missing")));
  EXPECT_THAT(problems({}, {"socket=" + at + "a"}), ElementsAre(HasSubstr("channels[0]: name is missing")));
  EXPECT_THAT(problems({}, {"a,socket=" + at + "a", "a,socket=" + at + "b"}),
              ElementsAre(HasSubstr("channels: two are named a")));
  EXPECT_THAT(problems({"socket:" + at + "a"}, {"a,socket=" + at + "a"}),
              ElementsAre(HasSubstr("is used already")));
  EXPECT_THAT(problems({"pty", "pty", "pty", "pty", "pty"}, {}),
              ElementsAre(HasSubstr("virtio_consoles: at most 4, got 5")));
  EXPECT_THAT(problems({}, {"a,socket=" + at + "none/a"}), ElementsAre(HasSubstr("no such folder")));
  std::ofstream(at + "file") << "x";
  EXPECT_THAT(problems({}, {"a,socket=" + at + "file"}), ElementsAre(HasSubstr("is a file, not a socket")));
}

TEST(Balloon, Forms) {
  EXPECT_EQ(spec_of("{}").balloon, 0u);
  EXPECT_EQ(spec_of("balloon: 0").balloon, 0u);
  EXPECT_EQ(spec_of("balloon: none").balloon, std::nullopt);
  EXPECT_EQ(spec_of("balloon: 64M").balloon, uint64_t{64} << 20);
  EXPECT_THAT(problems_in("balloon: 64"), Contains(HasSubstr("did you mean 64M?")));
  EXPECT_THAT(problems_in("balloon: false"), Contains(HasSubstr("expected")));
  const auto load = [](const char* size) {
    FlagValues flags;
    flags.by_key["memory"] = {"128M"};
    flags.by_key["balloon"] = {size};
    return texts_of(load_spec(std::nullopt, flags).problems);
  };
  EXPECT_THAT(load("127M"), IsEmpty());
  EXPECT_THAT(load("128M"), ElementsAre(HasSubstr("cannot give back all of its memory")));
}

}  // namespace
}  // namespace snug
