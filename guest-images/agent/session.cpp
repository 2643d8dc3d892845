#include "guest-images/agent/session.h"

#include <cerrno>
#include <cstring>
#include <memory>

#include "guest-images/agent/command.h"
#include "vmm/protocol/tree_reader.h"
#include "vmm/protocol/tree_writer.h"

namespace snug::agent {
namespace {

using protocol::ErrorCode;
using protocol::FrameType;

class Session {
 public:
  Session(Connection& connection, const Powers& powers) : connection_(connection), powers_(powers) {}
  void run();
  bool begun() const { return begun_; }

 private:
  bool greet() { return greet(connection_); }
  bool greet(Connection& connection);
  std::unique_ptr<Connection> next_client();
  bool take(const protocol::Frame& frame);
  bool exec(const protocol::Frame& frame);
  bool put(const protocol::Frame& frame);
  bool get(const protocol::Frame& frame);
  bool set_time(const protocol::Frame& frame);
  bool go_on(const protocol::Frame& frame);
  bool begin(const protocol::Frame& frame);
  bool readdress(const protocol::Frame& frame);
  bool power(const protocol::Frame& frame);
  bool mount(const protocol::Frame& frame);
  // Always false: the session is over.
  static bool refuse(Connection& connection, std::string_view why) {
    put_error(connection.out(), ErrorCode::kFailed, why);
    return false;
  }
  bool refuse(std::string_view why) { return refuse(connection_, why); }

  Connection& connection_;
  const Powers& powers_;
  uint16_t version_ = 0;  // that both speak
  bool begun_ = false;
  protocol::ExecAssembler assembler_;
};

void Session::run() {
  if (!greet()) return;
  while (const auto frame = connection_.wait_next())
    if (!take(*frame)) return;
  if (connection_.broken()) refuse("a frame that cannot be");
}

// The client's versions, and the one to speak.
bool Session::greet(Connection& connection) {
  const auto frame = connection.wait_next();
  if (!frame) return connection.broken() ? refuse(connection, "not the protocol of snug's agent") : false;
  const auto hello = protocol::decode_hello(frame->payload);
  if (frame->type != FrameType::kHello || !hello)
    return refuse(connection, "not the protocol of snug's agent");
  const auto version = protocol::common_version(*hello);
  if (!version)
    return refuse(connection, "this agent speaks versions " + std::to_string(protocol::kOldestVersion) +
                                  " to " + std::to_string(protocol::kVersion) +
                                  " of the protocol, the client " + std::to_string(hello->lowest) + " to " +
                                  std::to_string(hello->highest) + ": use an image made for this snug");
  version_ = *version;
  protocol::put_hello(connection.out(), {version_, version_});
  return true;
}

// One that takes a kept command up; others are sent away.
std::unique_ptr<Connection> Session::next_client() {
  while (powers_.accept_next != nullptr) {
    Fd fd = powers_.accept_next();
    if (!fd) break;
    auto client = std::make_unique<Connection>(std::move(fd));
    if (!greet(*client)) continue;
    const auto frame = client->wait_next();
    if (frame && frame->type == FrameType::kTakeUp) return client;
    refuse(*client, "only a command that was kept is here");
    client->finish();
  }
  return nullptr;
}

// False: no more requests.
bool Session::take(const protocol::Frame& frame) {
  switch (frame.type) {
    case FrameType::kArgument:
    case FrameType::kVariable:
    case FrameType::kExec:
      return exec(frame);
    case FrameType::kPing:
      put_frame(connection_.out(), FrameType::kDone, frame.payload);
      return true;
    case FrameType::kPut:
    case FrameType::kGet:
      if (version_ < protocol::kCopyVersion)
        return refuse(
            "the agent in this image copies otherwise than this snug, which is older: use a newer snug");
      return frame.type == FrameType::kPut ? put(frame) : get(frame);
    case FrameType::kSetTime:
      return set_time(frame);
    case FrameType::kPower:
      return power(frame);
    case FrameType::kMount:
      return mount(frame);
    case FrameType::kGoOn:
      return go_on(frame);
    case FrameType::kBegin:
      return begin(frame);
    case FrameType::kReaddress:
      return readdress(frame);
    default:
      return refuse("a request that this agent does not know");
  }
}

bool Session::exec(const protocol::Frame& frame) {
  switch (assembler_.take(frame)) {
    case protocol::ExecAssembler::Result::kMore:
      return true;
    case protocol::ExecAssembler::Result::kComplete:
      run_command(connection_, assembler_.request(), [this] { return next_client(); });
      return false;
    case protocol::ExecAssembler::Result::kTooLarge:
      return refuse("more arguments and variables than a command can have");
    case protocol::ExecAssembler::Result::kMalformed:
      break;
  }
  return refuse("a malformed command");
}

bool Session::put(const protocol::Frame& frame) {
  const auto request = protocol::decode_put(frame.payload);
  if (!request) return refuse("a malformed copy");
  using protocol::TreeWriter;
  TreeWriter writer(request->destination, request->name,
                    request->owners ? TreeWriter::Owners::kKept : TreeWriter::Owners::kOurs,
                    TreeWriter::Sender::kTrusted);
  bool more = true;
  while (more) {
    const auto part = connection_.wait_next();
    more = part && writer.take(*part);
    for (const protocol::Problem& problem : writer.take_problems()) put_problem(connection_.out(), problem);
  }
  if (!writer.done()) return refuse(writer.error().empty() ? "a copy cut short" : writer.error());
  put_frame(connection_.out(), FrameType::kDone);
  return false;
}

bool Session::get(const protocol::Frame& frame) {
  const auto source = protocol::decode_get(frame.payload);
  if (!source) return refuse("a malformed copy");
  protocol::TreeReader reader;
  if (!reader.open(*source)) return refuse(reader.error());
  for (bool more = true; more;) {
    std::string part;
    more = reader.next(part);
    // Before what may be the end: nothing is heard behind that.
    for (const protocol::Problem& problem : reader.take_problems()) put_problem(connection_.out(), problem);
    connection_.out() += part;
    if (!connection_.flush_all()) return false;
  }
  return reader.error().empty() ? false : refuse(reader.error());
}

bool Session::set_time(const protocol::Frame& frame) {
  const auto time = protocol::decode_number64(frame.payload);
  if (!time) return refuse("a malformed time");
  if (!powers_.set_time(*time)) return refuse(std::string("set the guest's clock: ") + std::strerror(errno));
  put_frame(connection_.out(), FrameType::kDone);
  return true;
}

bool Session::power(const protocol::Frame& frame) {
  const auto action = protocol::decode_power(frame.payload);
  if (!action) return refuse("no such power action");
  put_frame(connection_.out(), FrameType::kDone);
  if (connection_.flush_all()) powers_.power(*action);
  return false;
}

bool Session::go_on(const protocol::Frame& frame) {
  const auto request = protocol::decode_go_on(frame.payload);
  if (!request || version_ < protocol::kGoOnVersion) return refuse("a malformed request to go on");
  const std::string why = powers_.go_on(*request);
  if (!why.empty()) return refuse(why);
  put_frame(connection_.out(), FrameType::kDone);
  return true;
}

bool Session::begin(const protocol::Frame& frame) {
  const auto request = protocol::decode_begin(frame.payload);
  if (!request || version_ < protocol::kBeginVersion) return refuse("a malformed request to begin");
  if (powers_.begin == nullptr) return refuse("this guest has begun already");
  const std::string why = powers_.begin(*request);
  if (!why.empty()) return refuse(why);
  put_frame(connection_.out(), FrameType::kDone);
  begun_ = true;
  return false;
}

bool Session::readdress(const protocol::Frame& frame) {
  const auto changes = protocol::decode_readdress(frame.payload);
  if (!changes || version_ < protocol::kKeepVersion || powers_.readdress == nullptr)
    return refuse("malformed addresses");
  const std::string why = powers_.readdress(*changes);
  if (!why.empty()) return refuse(why);
  put_frame(connection_.out(), FrameType::kDone);
  return true;
}

bool Session::mount(const protocol::Frame& frame) {
  const auto request = protocol::decode_mount(frame.payload);
  if (!request || version_ < protocol::kMountVersion) return refuse("a malformed mount");
  const std::string why = powers_.mount(*request);
  if (!why.empty()) return refuse(why);
  put_frame(connection_.out(), FrameType::kDone);
  return true;
}

}  // namespace

bool serve(Fd fd, const Powers& powers) {
  Connection connection(std::move(fd));
  Session session(connection, powers);
  session.run();
  // Whoever is told that has nothing more to send, and others are not to wait for its end.
  if (session.begun()) return connection.flush_all();
  connection.finish();
  return false;
}

}  // namespace snug::agent
