#include "vmm/agent/copy.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <array>

#include "vmm/protocol/messages.h"
#include "vmm/protocol/tree_reader.h"
#include "vmm/protocol/tree_writer.h"

namespace snug {
namespace {

using protocol::Frame;
using protocol::FrameType;

constexpr time_t kGreetingSeconds = 30;

// A connection to the agent, blocking.
class Conversation {
 public:
  static Result<Conversation> begin(UniqueFd connection);

  // Errors: the agent is gone. It may have said why: hear() it.
  bool send(std::string_view bytes);
  bool something_to_hear() const;
  // The next frame, valid until the next call. Errors: the agent's own; its end; nonsense.
  Result<Frame> hear();

 private:
  explicit Conversation(UniqueFd connection) : connection_(std::move(connection)) {}
  Result<void> read_some();

  UniqueFd connection_;
  protocol::FrameReader reader_;
};

// How long a call that reads may block; 0: for ever.
void set_patience(int fd, time_t seconds) {
  const timeval patience{.tv_sec = seconds, .tv_usec = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
}

Result<Conversation> Conversation::begin(UniqueFd connection) {
  const int fd = connection.get();
  set_patience(fd, kGreetingSeconds);
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  Conversation conversation(std::move(connection));
  std::string greeting;
  protocol::put_hello(greeting, {});
  conversation.send(greeting);
  const Frame answer = SNUG_TRY(conversation.hear());
  const auto hello = protocol::decode_hello(answer.payload);
  if (answer.type != FrameType::kHello || !hello || hello->highest != protocol::kVersion)
    return fail("the guest's agent speaks something else");
  // From here on it may have to write to a slow disk.
  set_patience(fd, 0);
  return conversation;
}

bool Conversation::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::send(connection_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return true;
}

bool Conversation::something_to_hear() const {
  pollfd request{.fd = connection_.get(), .events = POLLIN, .revents = 0};
  return ::poll(&request, 1, 0) > 0;
}

Result<void> Conversation::read_some() {
  std::array<char, protocol::kDataChunk> buffer;
  ssize_t count;
  do count = ::recv(connection_.get(), buffer.data(), buffer.size(), 0);
  while (count < 0 && errno == EINTR);
  if (count < 0 && errno == EAGAIN) return fail("the guest's agent did not answer in time");
  if (count < 0) return fail_errno(errno, "the guest's agent");
  if (count == 0) return fail("the guest's agent closed the connection");
  reader_.feed({buffer.data(), static_cast<size_t>(count)});
  return {};
}

Result<Frame> Conversation::hear() {
  for (;;) {
    if (const auto frame = reader_.next()) {
      if (frame->type == FrameType::kError)
        return fail("in the guest: {}", protocol::decode_error(frame->payload).text);
      return *frame;
    }
    if (reader_.broken()) return fail("the guest's agent sent a frame that cannot be");
    SNUG_TRY(read_some());
  }
}

std::string last_part(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path.substr(path.rfind('/') + 1);
}

}  // namespace

Result<size_t> copy_to_guest(UniqueFd connection, const std::string& source, const std::string& destination) {
  protocol::TreeReader reader;
  if (!reader.open(source)) return fail("{}", reader.error());
  auto agent = SNUG_TRY(Conversation::begin(std::move(connection)));
  std::string out;
  protocol::put_put(out, {destination, last_part(source)});
  // An answer before the end is a refusal.
  bool sending = agent.send(out);
  while (sending && !agent.something_to_hear()) {
    out.clear();
    if (!reader.next(out)) break;
    sending = agent.send(out);
  }
  if (!reader.error().empty()) return fail("{}", reader.error());
  const Frame answer = SNUG_TRY(agent.hear());
  if (answer.type != FrameType::kDone) return fail("the guest's agent speaks something else");
  return reader.skipped();
}

Result<void> copy_from_guest(UniqueFd connection, const std::string& source, const std::string& destination) {
  auto agent = SNUG_TRY(Conversation::begin(std::move(connection)));
  std::string out;
  protocol::put_get(out, source);
  agent.send(out);
  protocol::TreeWriter writer(destination, last_part(source));
  while (writer.take(SNUG_TRY(agent.hear()))) {
  }
  if (!writer.done()) return fail("{}", writer.error());
  return {};
}

}  // namespace snug
