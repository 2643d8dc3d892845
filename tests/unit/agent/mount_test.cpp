// Shares: the request, what the agent answers, and what it makes of the guest's mounts. Nothing is mounted
// here.
#include "guest-images/agent/mount.h"

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/unit/agent/fixture.h"
#include "vmm/agent/agent_request.h"

namespace snug::test {
namespace {

namespace fs = std::filesystem;
using protocol::MountRequest;
using testing::HasSubstr;

std::string payload_of(const MountRequest& request) {
  std::string bytes;
  put_mount(bytes, request);
  protocol::FrameReader reader;
  reader.feed(bytes);
  const auto frame = reader.next();
  EXPECT_TRUE(frame && frame->type == protocol::FrameType::kMount);
  return std::string(frame->payload);
}

TEST(MountRequests, AreReadAsTheyWereWritten) {
  for (const MountRequest& request :
       {MountRequest{"share0", "/work", "", false}, MountRequest{"a", "/b c/\xff", "", true},
        MountRequest{"t", "/etc/motd", "motd", false}, MountRequest{"t", "/etc/motd", "..m", true}})
    EXPECT_EQ(protocol::decode_mount(payload_of(request)), request) << request.target;
}

TEST(MountRequests, ThatCannotBeAreRefused) {
  using namespace std::string_literals;
  for (const MountRequest& request :
       {MountRequest{"", "/work", "", false}, MountRequest{"t", "work", "", false},
        MountRequest{"t", "", "", false}, MountRequest{"t", "/a", "x/y", false},
        MountRequest{"t", "/a", "..", false}, MountRequest{"t", "/a", ".", false},
        MountRequest{"t\0x"s, "/a", "", false}, MountRequest{"t", "/a\0b"s, "", false}})
    EXPECT_FALSE(protocol::decode_mount(payload_of(request))) << request.target;
  const std::string good = payload_of({"t", "/a", "", false});
  EXPECT_FALSE(protocol::decode_mount(good + "x"));
  EXPECT_FALSE(protocol::decode_mount(good.substr(0, good.size() - 1)));
  // Flags that nobody knows, and one of a file that is not named.
  for (const int flags : {2, 4, 128}) {
    std::string odd = good;
    odd[odd.size() - 5] = static_cast<char>(flags);
    EXPECT_FALSE(protocol::decode_mount(odd)) << flags;
  }
}

class MountTest : public AgentTest {
 protected:
  // Asks the agent, which refuses what is called "refused": "done", or the reason.
  std::string ask(const MountRequest& request, uint16_t version = protocol::kMountVersion) {
    std::string frame, outcome;
    put_mount(frame, request);
    auto started = AgentRequest::start(*loop_, connect_agent(), frame, std::chrono::seconds(10),
                                       [&](const Result<void>& result) {
                                         outcome = result ? "done" : result.error().text();
                                         loop_->stop();
                                       },
                                       {.version = version});
    EXPECT_TRUE(started);
    EXPECT_TRUE(loop_->run());
    return outcome;
  }
};

TEST_F(MountTest, IsDoneOrRefusedInWords) {
  EXPECT_EQ(ask({"share0", "/work", "", true}), "done");
  EXPECT_EQ(ask({"refused", "/work", "", false}), "the guest's agent: cannot mount refused on /work");
  EXPECT_THAT(ask({"share0", "work", "", false}), HasSubstr("malformed"));
}

TEST_F(MountTest, AnAgentThatIsOlderIsNamedWithWhatHelps) {
  const std::string answer = ask({"share0", "/work", "", false}, protocol::kVersion + 1);
  EXPECT_THAT(answer, HasSubstr("older than this snug"));
  EXPECT_THAT(answer, HasSubstr("snug image build initrd"));
}

constexpr const char* kMountinfo =
    "1 1 0:2 / / rw - rootfs none rw\n"
    "20 1 0:21 / /proc rw,nosuid shared:5 - proc proc rw\n"
    "30 1 0:40 / /work rw,nodev - virtiofs share0 rw\n"
    "31 1 0:41 / /a\\040b\\134c rw,nodev shared:7 master:2 - virtiofs my-tag ro\n"
    "32 1 0:42 /motd /etc/motd rw - virtiofs file rw\n"
    "33 1 0:43 / /hidden rw - virtiofs share1 rw\n"
    "34 33 0:44 / /hidden rw - tmpfs share1 rw\n";

TEST(Mounts, ThatAreThereAlreadyAreFound) {
  const auto found = [](const MountRequest& request) {
    return agent::is_mounted(kMountinfo, request, request.target);
  };
  EXPECT_TRUE(found({"share0", "/work", "", false}));
  EXPECT_TRUE(found({"my-tag", "/a b\\c", "", true}));
  EXPECT_TRUE(found({"file", "/etc/motd", "motd", false}));
  EXPECT_FALSE(found({"share1", "/work", "", false}));
  EXPECT_FALSE(found({"share0", "/wor", "", false}));
  EXPECT_FALSE(found({"file", "/etc/motd", "", false}));
  EXPECT_FALSE(found({"file", "/etc/motd", "other", false}));
  EXPECT_FALSE(found({"share1", "/hidden", "", false})) << "something else covers it";
  EXPECT_FALSE(found({"proc", "/proc", "", false}));
  for (const char* odd :
       {"", "\n\n", "1 2 3", "1 2 3 / /work", "1 2 3 / /work rw - ", "1 2 3 / /work\\04 rw - virtiofs"})
    EXPECT_FALSE(agent::is_mounted(odd, {"share0", "/work", "", false}, "/work")) << odd;
}

// The folders on which the share of a file is mounted on the way: none is left.
std::vector<std::string> places_of_files() {
  std::vector<std::string> found;
  for (const char* place : {"/run", "/tmp", "/dev"})
    for (const auto& entry : fs::directory_iterator(place))
      if (entry.path().filename().string().starts_with("snug-file-")) found.push_back(entry.path());
  return found;
}

// Up to the mount itself, which fails here: no device has that tag, or this user may not.
TEST(Mounts, TargetsAreMadeAndReasonsGiven) {
  std::string pattern = testing::TempDir() + "/snug-mount-XXXXXX";
  const fs::path folder = fs::canonical(::mkdtemp(pattern.data()));
  const std::string base = folder.string();
  const std::string no_device = "no-such-device-of-snug";
  const auto refused =
      testing::AnyOf(HasSubstr("no virtiofs"), HasSubstr("no device with the tag"), HasSubstr("takes root"));
  EXPECT_THAT(agent::mount_share({no_device, base + "/a/b", "", false}), refused);
  EXPECT_TRUE(fs::is_directory(folder / "a/b"));
  EXPECT_THAT(agent::mount_share({no_device, base + "/a/b", "", false}), refused);
  EXPECT_THAT(agent::mount_share({no_device, base + "/c/file", "file", true}), refused);
  EXPECT_TRUE(fs::is_regular_file(folder / "c/file"));
  EXPECT_EQ(agent::mount_share({no_device, base + "/c/file/d", "", false}),
            "make the folder " + base + "/c/file: File exists");
  EXPECT_EQ(agent::mount_share({no_device, base + "/c/file", "", false}),
            "make the folder " + base + "/c/file: File exists");
  EXPECT_EQ(agent::mount_share({no_device, base + "/a", "file", false}),
            base + "/a is a folder, and the share is a file");
  fs::remove_all(folder);
  // Another run of these tests beside this one has its own for a moment.
  for (int tries = 0; tries < 500 && !places_of_files().empty(); ++tries) ::usleep(10'000);
  EXPECT_THAT(places_of_files(), testing::IsEmpty());
}

}  // namespace
}  // namespace snug::test
