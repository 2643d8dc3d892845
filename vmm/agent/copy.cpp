#include "vmm/agent/copy.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <optional>

#include "vmm/protocol/messages.h"
#include "vmm/protocol/tree_reader.h"
#include "vmm/protocol/tree_writer.h"

namespace snug {
namespace {

using protocol::Frame;
using protocol::FrameType;

constexpr time_t kGreetingSeconds = 30;

// A connection to the agent.
class Conversation {
 public:
  static Result<Conversation> begin(UniqueFd connection, const CopyOptions& options);

  // A few bytes. What comes meanwhile is for hear(), also why the agent has gone.
  void say(std::string_view bytes) {
    (void)!::send(connection_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  // Hears meanwhile: problems; an agent's own error is an error. So is its answer before the end.
  Result<void> send(std::string_view bytes);
  // The next frame that is no problem, valid until the next call. Errors: the agent's own; its end; nonsense.
  Result<Frame> hear();

 private:
  Conversation(UniqueFd connection, const CopyOptions& options)
      : connection_(std::move(connection)), options_(&options) {}
  Result<void> read_some();
  // Nothing: it is not whole yet.
  Result<std::optional<Frame>> next_frame();

  UniqueFd connection_;
  const CopyOptions* options_;
  protocol::FrameReader reader_;
};

// How long a call that reads may block; 0: for ever.
void set_patience(int fd, time_t seconds) {
  const timeval patience{.tv_sec = seconds, .tv_usec = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
}

Result<Conversation> Conversation::begin(UniqueFd connection, const CopyOptions& options) {
  const int fd = connection.get();
  set_patience(fd, kGreetingSeconds);
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  Conversation conversation(std::move(connection), options);
  std::string greeting;
  protocol::put_hello(greeting, {});
  conversation.say(greeting);
  const Frame answer = SNUG_TRY(conversation.hear());
  const auto hello = protocol::decode_hello(answer.payload);
  const auto version = hello ? protocol::chosen_version(*hello) : std::nullopt;
  if (answer.type != FrameType::kHello || !version) return fail("the guest's agent speaks something else");
  if (*version < protocol::kCopyVersion)
    return fail_with_hint("the agent in this guest is older than this snug, which copies otherwise",
                          "use an image that is built anew; until then, snug exec with tar copies as well");
  // From here on it may have to write to a slow disk.
  set_patience(fd, 0);
  return conversation;
}

Result<void> Conversation::send(std::string_view bytes) {
  while (!bytes.empty()) {
    pollfd request{.fd = connection_.get(), .events = POLLIN | POLLOUT, .revents = 0};
    if (::poll(&request, 1, -1) < 0) continue;
    if ((request.revents & (POLLIN | POLLERR)) != 0) {
      SNUG_TRY(read_some());
      if (SNUG_TRY(next_frame())) return fail("the guest's agent speaks something else");
      continue;
    }
    const ssize_t count = ::send(connection_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    // Why is what there is to read.
    if (count < 0) return fail_errno(errno, "the guest's agent");
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return {};
}

Result<void> Conversation::read_some() {
  std::array<char, protocol::kDataChunk> buffer;
  ssize_t count;
  do count = ::recv(connection_.get(), buffer.data(), buffer.size(), 0);
  while (count < 0 && errno == EINTR && !options_->is_stopped());
  if (count < 0 && errno == EINTR) return fail("stopped");
  if (count < 0 && errno == EAGAIN) return fail("the guest's agent did not answer in time");
  if (count < 0) return fail_errno(errno, "the guest's agent");
  if (count == 0) return fail("the guest's agent closed the connection");
  reader_.feed({buffer.data(), static_cast<size_t>(count)});
  return {};
}

Result<std::optional<Frame>> Conversation::next_frame() {
  while (const auto frame = reader_.next()) {
    if (frame->type == FrameType::kError)
      return fail("in the guest: {}", protocol::decode_error(frame->payload).text);
    if (frame->type != FrameType::kProblem) return frame;
    auto problem = protocol::decode_problem(frame->payload);
    if (!problem) return fail("the guest's agent sent a frame that cannot be");
    problem->text = "in the guest: " + problem->text;
    options_->on_problem(*problem);
    if (options_->is_stopped()) return fail("stopped");
  }
  if (reader_.broken()) return fail("the guest's agent sent a frame that cannot be");
  return std::optional<Frame>();
}

Result<Frame> Conversation::hear() {
  for (;;) {
    if (const auto frame = SNUG_TRY(next_frame())) return *frame;
    SNUG_TRY(read_some());
  }
}

// Under which name it arrives in a folder; none, as cp(1) has it: what is in it does.
std::string name_of(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  path = path.substr(path.rfind('/') + 1);
  return path == "." || path == ".." ? "" : path;
}

}  // namespace

Result<void> copy_to_guest(UniqueFd connection, const std::string& source, const std::string& destination,
                           const CopyOptions& options) {
  protocol::TreeReader reader;
  if (!reader.open(source)) return fail("{}", reader.error());
  auto agent = SNUG_TRY(Conversation::begin(std::move(connection), options));
  std::string out;
  protocol::put_put(out, {destination, name_of(source), options.owners});
  for (bool more = true; more;) {
    SNUG_TRY(agent.send(out));
    out.clear();
    more = reader.next(out);
    for (const protocol::Problem& problem : reader.take_problems()) options.on_problem(problem);
  }
  if (!reader.error().empty()) return fail("{}", reader.error());
  const Frame answer = SNUG_TRY(agent.hear());
  if (answer.type != FrameType::kDone) return fail("the guest's agent speaks something else");
  return {};
}

Result<void> copy_from_guest(UniqueFd connection, const std::string& source, const std::string& destination,
                             const CopyOptions& options) {
  using protocol::TreeWriter;
  auto agent = SNUG_TRY(Conversation::begin(std::move(connection), options));
  std::string out;
  protocol::put_get(out, source);
  agent.say(out);
  TreeWriter writer(destination, name_of(source),
                    options.owners ? TreeWriter::Owners::kKept : TreeWriter::Owners::kOurs,
                    TreeWriter::Sender::kGuest);
  for (bool more = true; more;) {
    more = writer.take(SNUG_TRY(agent.hear()));
    for (const protocol::Problem& problem : writer.take_problems()) options.on_problem(problem);
    if (options.is_stopped()) return fail("stopped");
  }
  if (!writer.done()) return fail("{}", writer.error());
  return {};
}

}  // namespace snug
