#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

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

VsockSpec vsock_of(std::string_view yaml) {
  const auto outcome = parse_spec_text(yaml, "vm.yaml", "/specs");
  EXPECT_THAT(texts_of(outcome.problems), IsEmpty());
  // What is printed is read back as the same.
  const auto again = parse_spec_text(effective_spec_yaml(outcome.spec), "vm.yaml", "/other");
  EXPECT_EQ(again.spec.vsock, outcome.spec.vsock);
  return outcome.spec.vsock;
}

TEST(Vsock, Forms) {
  EXPECT_EQ(vsock_of("cpus: 1"), VsockSpec{});
  EXPECT_EQ(vsock_of("vsock: none"), VsockSpec{});
  EXPECT_EQ(vsock_of("vsock: auto"), (VsockSpec{{VsockKind::kAuto, ""}, 3}));
  EXPECT_EQ(vsock_of("vsock: vm.sock"), (VsockSpec{{VsockKind::kPath, "/specs/vm.sock"}, 3}));
  EXPECT_EQ(vsock_of("vsock: {socket: /run/x/auto, cid: 4294967294}"),
            (VsockSpec{{VsockKind::kPath, "/run/x/auto"}, 0xfffffffe}));
  EXPECT_EQ(vsock_of("vsock: {cid: 7, socket: auto}"), (VsockSpec{{VsockKind::kAuto, ""}, 7}));
}

TEST(Vsock, Problems) {
  const auto problems = [](std::string_view yaml) {
    return texts_of(parse_spec_text(yaml, "vm.yaml", "/specs").problems);
  };
  EXPECT_THAT(
      problems("vsock: atuo"),
      ElementsAre("vm.yaml:1:8: vsock.socket: expected auto, none or a path with a '/' or '.' in it, got "
                  "'atuo' (did you mean 'auto'?)"));
  EXPECT_THAT(problems("vsock: {cid: 2}"),
              ElementsAre(HasSubstr("expected a whole number from 3 to 4294967294")));
  EXPECT_THAT(problems("vsock: {cid: 4294967295}"), ElementsAre(HasSubstr("expected a whole number from 3")));
  EXPECT_THAT(problems("vsock: {guest_cid: 4}"), ElementsAre(HasSubstr("did you mean 'cid'?")));
}

FlagValues flags(const std::string& socket, const std::string& cid = "") {
  FlagValues values;
  if (!socket.empty()) values.add("vsock.socket", socket);
  if (!cid.empty()) values.add("vsock.cid", cid);
  return values;
}

class VsockFiles : public TempFolder {};

TEST_F(VsockFiles, Flags) {
  EXPECT_THAT(texts_of(load_spec(std::nullopt, flags(path("new.sock"))).problems), IsEmpty());
  EXPECT_THAT(texts_of(load_spec(std::nullopt, flags("", "4")).problems),
              ElementsAre("vsock: a cid alone makes no device: say where its socket is, socket: auto"));
  EXPECT_THAT(texts_of(load_spec(std::nullopt, flags(path("no/v.sock"))).problems),
              ElementsAre(HasSubstr("--vsock: no such folder")));
  EXPECT_THAT(texts_of(load_spec(std::nullopt, flags(path("."))).problems),
              ElementsAre(HasSubstr("is a folder, not a socket")));
  write("file.sock", "x");
  EXPECT_THAT(texts_of(load_spec(std::nullopt, flags(path("file.sock"))).problems),
              ElementsAre(HasSubstr("is a file, not a socket")));
  // One that a killed machine has left behind is replaced.
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM, 0));
  const std::string stale = path("stale.sock");
  const sockaddr_un address = *socket_address(stale);
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_THAT(texts_of(load_spec(std::nullopt, flags(stale)).problems), IsEmpty());
}

}  // namespace
}  // namespace snug
