#include "vmm/agent/exec_session.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "vmm/base/socket_io.h"

namespace snug {
namespace {

constexpr size_t kAtOnce = 16 * 1024;

using protocol::FrameType;

// Input waits until what was put before it is on its way.
constexpr size_t kOutLimit = 256 * 1024;
// An agent that sends and never reads is not listened to any more.
constexpr size_t kOutHardLimit = 1024 * 1024;

std::string why_too_long(const protocol::ExecRequest& request) {
  size_t longest = std::max(request.folder.size(), request.user.size());
  for (const auto* list : {&request.arguments, &request.variables})
    for (const std::string& text : *list) longest = std::max(longest, text.size());
  if (longest >= protocol::kMaxPayload)
    return fmt::format("the command is too long: an argument or a variable of {} bytes; Linux takes {}",
                       longest, protocol::kMaxPayload - 1);
  return fmt::format(
      "the command is too long: {} arguments and variables of {} bytes, the {} that each costs besides "
      "included; "
      "Linux takes {}",
      request.arguments.size() + request.variables.size(), exec_size(request),
      protocol::ExecRequest::kOverhead, protocol::ExecRequest::kMaxBytes);
}

}  // namespace

int ExecEnd::shell_status() const {
  switch (kind) {
    case Kind::kEnded:
      if (status.shell_status() == 0 && !stream_error.empty()) break;
      return status.shell_status();
    case Kind::kRefused:
      return static_cast<int>(error.code);
    case Kind::kLost:
      break;
  }
  return static_cast<int>(protocol::ErrorCode::kFailed);
}

Result<std::unique_ptr<ExecSession>> ExecSession::start(EventLoop& loop, UniqueFd connection,
                                                        const protocol::ExecRequest& request, Streams streams,
                                                        Events events, std::chrono::milliseconds patience,
                                                        ExecBefore before) {
  std::unique_ptr<ExecSession> session(new ExecSession(loop, std::move(events)));
  if (!put_exec(session->request_, request)) return fail("{}", why_too_long(request));
  session->before_ = std::move(before);
  SNUG_TRY(session->begin(std::move(connection), std::move(streams), patience));
  return session;
}

Result<std::unique_ptr<ExecSession>> ExecSession::take_up(EventLoop& loop, UniqueFd connection,
                                                          Streams streams, Events events) {
  std::unique_ptr<ExecSession> session(new ExecSession(loop, std::move(events)));
  put_frame(session->request_, FrameType::kTakeUp);
  session->before_.version = protocol::kKeepVersion;
  SNUG_TRY(session->begin(std::move(connection), std::move(streams), kPatience));
  return session;
}

Result<void> ExecSession::begin(UniqueFd connection, Streams streams, std::chrono::milliseconds patience) {
  connection_ = std::move(connection);
  const int fd = connection_.get();
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  protocol::put_hello(out_, {});
  out_ += before_.frames;
  // A short one need not wait for the greeting: it is the same in all versions that know it.
  if (request_.size() <= kAtOnce) out_ += std::exchange(request_, {});
  patience_ = SNUG_TRY(loop_.timer([this, patience] {
    abandon(fmt::format("the guest's agent did not answer within {:g} s",
                        std::chrono::duration<double>(patience).count()));
  }));
  patience_.arm(patience);
  watch_ = SNUG_TRY(
      loop_.watch(fd, EPOLLIN | EPOLLOUT, [this](uint32_t epoll_events) { on_connection(epoll_events); }));
  open_streams(std::move(streams));
  return {};
}

ExecSession::~ExecSession() = default;

void ExecSession::open_streams(Streams streams) {
  UniqueFd* const fds[] = {&streams.output, &streams.errors};
  for (size_t i = 0; i < outputs_.size(); ++i) {
    const auto channel = static_cast<uint8_t>(protocol::kOutput + i);
    OutputEnd::Events events;
    events.written = [this, channel](size_t count) {
      consume(channel, count);
      maybe_end();
    };
    events.lost = [this, channel](int error) {
      if (error != EPIPE) fail_stream(channel == protocol::kOutput ? "stdout" : "stderr", error);
      // As a pipe does it: the command is to know that nobody reads it.
      put_frame(out_, FrameType::kDrop, {}, channel);
      update_watch();
      maybe_end();
    };
    outputs_[i].end = std::make_unique<OutputEnd>(loop_, std::move(*fds[i]), std::move(events));
  }
  InputEnd::Events events;
  events.room = [this] { return input_room(); };
  events.bytes = [this](std::string_view bytes) {
    if (events_.input) events_.input(bytes);
    put_frame(out_, FrameType::kData, bytes, protocol::kInput);
    input_window_.sent(static_cast<uint32_t>(bytes.size()));
    update_watch();
  };
  events.ended = [this] {
    put_frame(out_, FrameType::kEnd, {}, protocol::kInput);
    update_watch();
  };
  events.failed = [this](int error) {
    fail_stream("stdin", error);
    put_frame(out_, FrameType::kEnd, {}, protocol::kInput);
    update_watch();
  };
  input_ = std::make_unique<InputEnd>(loop_, std::move(streams.input), std::move(events));
}

size_t ExecSession::input_room() const {
  if (state_ != State::kRunning || out_.size() >= kOutLimit) return 0;
  return input_window_.available();
}

void ExecSession::signal(int number) {
  if (state_ == State::kRunning) put_number32(out_, FrameType::kSignal, static_cast<uint32_t>(number));
  update_watch();
}

void ExecSession::keep() {
  if (state_ != State::kRunning || version_ < protocol::kKeepVersion) return;
  put_frame(out_, FrameType::kKeep);
  update_watch();
}

void ExecSession::resize(protocol::WindowSize size) {
  if (state_ == State::kRunning) put_resize(out_, size);
  update_watch();
}

void ExecSession::abandon(const std::string& why) {
  lose(why);
  maybe_end();
}

void ExecSession::on_connection(uint32_t epoll_events) {
  if (gone_) return;
  if ((epoll_events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !receive()) gone_ = true;
  if (!gone_) send();
  if (gone_) {
    watch_.reset();
    if (input_) input_->stop();
  }
  update_watch();
  maybe_end();
}

// False: nothing more can come.
bool ExecSession::receive() {
  std::array<char, protocol::kDataChunk> buffer;
  const ssize_t count = receive_some(connection_.get(), buffer.data(), buffer.size());
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (count <= 0) {
    const std::string reason = count < 0 ? errno_text(errno) : "it closed the connection";
    return lose("the guest's agent: " + reason);
  }
  reader_.feed({buffer.data(), static_cast<size_t>(count)});
  while (const auto frame = reader_.next())
    if (!take_frame(*frame)) return false;
  return !reader_.broken() || lose("the guest's agent sent a frame that cannot be");
}

// False: the session is over.
bool ExecSession::take_frame(const protocol::Frame& frame) {
  if (frame.type == FrameType::kError) {
    end_.emplace();
    end_->error = protocol::decode_error(frame.payload);
    // Of a command that has started there is still no status.
    end_->kind = state_ == State::kRunning ? ExecEnd::Kind::kLost : ExecEnd::Kind::kRefused;
    return false;
  }
  switch (state_) {
    case State::kGreeting:
      return take_greeting(frame);
    case State::kBefore:
      return take_answer(frame);
    case State::kStarting:
      if (frame.type != FrameType::kStarted) return lose("the guest's agent did not start the command");
      state_ = State::kRunning;
      patience_.disarm();
      input_->update();
      if (events_.started) events_.started();
      return true;
    case State::kRunning:
      return take_running_frame(frame);
    case State::kOver:
      break;
  }
  return lose("the guest's agent spoke out of turn");
}

bool ExecSession::take_greeting(const protocol::Frame& frame) {
  const auto hello = protocol::decode_hello(frame.payload);
  if (frame.type != FrameType::kHello || !hello) return lose("the guest's agent speaks something else");
  const auto version = protocol::chosen_version(*hello);
  if (!version)
    return lose(fmt::format("the guest's agent speaks version {} of the protocol, this snug {} to {}",
                            hello->highest, protocol::kOldestVersion, protocol::kVersion));
  if (*version < before_.version)
    return lose("the guest's agent is older than this snug and does not know how");
  version_ = *version;
  out_ += request_;
  request_ = {};
  state_ = before_.answers > 0 ? State::kBefore : State::kStarting;
  return true;
}

bool ExecSession::take_answer(const protocol::Frame& frame) {
  if (frame.type != FrameType::kDone)
    return lose("the guest's agent did not do what comes before the command");
  if (--before_.answers > 0) return true;
  state_ = State::kStarting;
  if (auto done = std::exchange(before_.done, nullptr)) done({});
  return true;
}

bool ExecSession::take_running_frame(const protocol::Frame& frame) {
  switch (frame.type) {
    case FrameType::kData:
      return take_output(frame);
    case FrameType::kEnd:
      if (Output* output = output_of(frame.channel)) output->ended = true;
      return true;
    case FrameType::kCredit: {
      const auto count = protocol::decode_number32(frame.payload);
      if (!count || frame.channel != protocol::kInput || !input_window_.granted(*count))
        return lose("the guest's agent gave credit that cannot be");
      input_->update();
      return true;
    }
    case FrameType::kDrop:
      if (frame.channel == protocol::kInput) input_->stop();
      return true;
    case FrameType::kExit: {
      const auto status = protocol::decode_exit(frame.payload);
      if (!status) return lose("the guest's agent sent a status that cannot be");
      end_ = ExecEnd{.kind = ExecEnd::Kind::kEnded, .status = *status};
      return false;
    }
    default:
      return lose("the guest's agent sent a frame that does not belong to a command");
  }
}

bool ExecSession::take_output(const protocol::Frame& frame) {
  Output* output = output_of(frame.channel);
  if (output == nullptr || output->ended || !output->window.received(frame.payload.size()))
    return lose("the guest's agent sent more than it may");
  if (events_.output) events_.output(frame.channel, frame.payload);
  // What nobody wants is taken all the same.
  if (output->end->lost())
    consume(frame.channel, frame.payload.size());
  else
    output->end->write(frame.payload);
  return true;
}

void ExecSession::consume(uint8_t channel, size_t count) {
  const uint32_t credit = output_of(channel)->window.consumed(count);
  if (credit == 0 || state_ == State::kOver) return;
  put_number32(out_, FrameType::kCredit, credit, channel);
  update_watch();
}

ExecSession::Output* ExecSession::output_of(uint8_t channel) {
  if (channel == protocol::kOutput) return &outputs_[0];
  if (channel == protocol::kErrors) return &outputs_[1];
  return nullptr;
}

void ExecSession::send() {
  while (!out_.empty()) {
    const ssize_t count = send_some(connection_.get(), out_.data(), out_.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      // What the agent has said before it went is still to be read: reading finds the end.
      if (errno != EAGAIN) out_.clear();
      break;
    }
    out_.erase(0, static_cast<size_t>(count));
  }
  if (out_.size() < kOutLimit) input_->update();
}

void ExecSession::update_watch() {
  if (gone_ || !watch_) return;
  uint32_t wanted = out_.size() < kOutHardLimit ? uint32_t{EPOLLIN} : 0;
  if (!out_.empty()) wanted |= EPOLLOUT;
  watch_.set_events(wanted);
}

// Always false. What is known already stays.
bool ExecSession::lose(const std::string& why) {
  if (!end_) end_ = ExecEnd{.kind = ExecEnd::Kind::kLost, .error = {protocol::ErrorCode::kFailed, why}};
  return false;
}

void ExecSession::fail_stream(const char* name, int error) {
  if (stream_error_.empty()) stream_error_ = fmt::format("{}: {}", name, errno_text(error));
}

// All is said when the end is known and the outputs are written, however long that takes.
void ExecSession::maybe_end() {
  if (!end_ || told_) return;
  if (state_ != State::kOver) {
    state_ = State::kOver;
    gone_ = true;
    patience_.disarm();
    watch_.reset();
    input_->stop();
    connection_.reset();
  }
  for (const Output& output : outputs_)
    if (!output.end->empty()) return;
  told_ = true;
  if (end_->kind == ExecEnd::Kind::kEnded) end_->stream_error = stream_error_;
  loop_.post([this, alive = std::weak_ptr<int>(alive_)] {
    if (alive.expired()) return;
    if (auto done = std::exchange(before_.done, nullptr)) return done(fail("{}", end_->error.text));
    events_.ended(*end_);
  });
}

}  // namespace snug
