// Any bytes as what the guest's agent says: a command's session, a request and a copy take them, and come to
// an end. The first byte chooses which, and whether a greeting goes before.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>

#include "vmm/agent/agent_request.h"
#include "vmm/agent/exec_session.h"
#include "vmm/base/assertion.h"
#include "vmm/protocol/tree_writer.h"

namespace {

using namespace snug;

// Within what a socket holds without a reader.
constexpr size_t kLongest = 100'000;

struct Pair {
  UniqueFd near, far;
  explicit Pair(std::string_view said) {
    std::array<int, 2> ends{};
    SNUG_ASSERT(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
    near = UniqueFd(ends[0]);
    far = UniqueFd(ends[1]);
    (void)!::send(far.get(), said.data(), said.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    ::shutdown(far.get(), SHUT_WR);
  }
};

void fuzz_command(std::string_view said) {
  Pair pair(said);
  auto loop = EventLoop::create();
  protocol::ExecRequest request;
  request.arguments = {"true"};
  ExecSession::Streams streams;
  streams.output = UniqueFd(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  ExecSession::Events events;
  bool ended = false;
  events.ended = [&](const ExecEnd& end) {
    ended = true;
    // A status of success is one that was sent in full.
    SNUG_ASSERT(end.kind == ExecEnd::Kind::kEnded || end.shell_status() != 0);
    (*loop)->stop();
  };
  auto session =
      ExecSession::start(**loop, std::move(pair.near), request, std::move(streams), std::move(events));
  SNUG_ASSERT(session.has_value());
  (void)(*loop)->run();
  SNUG_ASSERT(ended);
}

void fuzz_request(std::string_view said) {
  Pair pair(said);
  auto loop = EventLoop::create();
  std::string frame;
  put_frame(frame, protocol::FrameType::kPing, "?");
  auto request = AgentRequest::start(**loop, std::move(pair.near), frame, std::chrono::seconds(10),
                                     [&](const Result<void>&) { (*loop)->stop(); });
  SNUG_ASSERT(request.has_value());
  (void)(*loop)->run();
}

// Folders that their owner may not look into, too.
void remove_tree(const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  fs::permissions(folder, fs::perms::owner_all, fs::perm_options::add);
  for (const auto& entry : fs::directory_iterator(folder))
    if (!entry.is_symlink() && entry.is_directory()) remove_tree(entry.path());
  fs::remove_all(folder);
}

void fuzz_copy(std::string_view said) {
  static const std::string folder = [] {
    std::string name = "/tmp/snug-fuzz-XXXXXX";
    SNUG_ASSERT(::mkdtemp(name.data()) != nullptr);
    return name;
  }();
  // What is written lies in here, or it has come out.
  std::filesystem::create_directories(folder + "/inside/deep");
  {
    using protocol::TreeWriter;
    // What an earlier copy may have left there.
    (void)!::symlink("../..", (folder + "/inside/deep/way").c_str());
    TreeWriter writer(folder + "/inside/deep", (said.size() & 1) != 0 ? "copy" : "",
                      TreeWriter::Owners::kOurs, TreeWriter::Sender::kGuest);
    protocol::FrameReader reader;
    reader.feed(said);
    while (const auto frame = reader.next()) {
      const bool more = writer.take(*frame);
      for (const protocol::Problem& problem : writer.take_problems()) SNUG_ASSERT(!problem.text.empty());
      if (!more) break;
    }
    SNUG_ASSERT(!writer.done() || writer.error().empty());
  }
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    count += entry.path() == folder + "/inside";
  SNUG_ASSERT(count == 1);
  for (const auto& entry : std::filesystem::directory_iterator(folder + "/inside"))
    SNUG_ASSERT(entry.path().filename() == "deep");
  remove_tree(folder);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string said;
  if ((data[0] & 4) != 0) protocol::put_hello(said, {protocol::kVersion, protocol::kVersion});
  if ((data[0] & 8) != 0) put_number32(said, protocol::FrameType::kStarted, 1);
  said.append(reinterpret_cast<const char*>(data + 1), std::min(size - 1, kLongest));
  switch (data[0] & 3) {
    case 0:
      fuzz_command(said);
      break;
    case 1:
      fuzz_command(said);
      break;
    case 2:
      fuzz_request(said);
      break;
    default:
      fuzz_copy(said);
  }
  return 0;
}
