#include "guest-images/agent/command.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>
#include <vector>

namespace snug::agent {
namespace {

using protocol::FrameType;

// Data frames wait until what was put before them is on its way.
constexpr size_t kOutLimit = 256 * 1024;
// Without reading on, the answers to a client that sends and never reads would pile up.
constexpr size_t kOutHardLimit = 1024 * 1024;
// How long a terminal may still have something under way after its command has ended.
constexpr int kTerminalMilliseconds = 100;
// How long processes that a command leaves behind are waited for when they hold its output: a filter that it
// wrote through (exec > >(tee log)) has something to pass on yet, a server that it started never ends.
constexpr std::chrono::milliseconds kLeftBehind{2000};
// How often a terminal is looked at whose input is at its end.
constexpr int kEndMilliseconds = 50;

using Clock = std::chrono::steady_clock;

class Runner {
 public:
  Runner(Connection& connection, Child child, bool tty);
  // Until the command's end has been said, or its client is gone.
  void run();
  // After run(): somebody else is to be served.
  bool is_left() const { return kept_ && !said_; }
  void take_up(Connection& connection);
  void hang_up();

 private:
  struct Source {
    Fd fd;
    uint8_t channel;
    protocol::SendWindow window;
    // When what the command has left behind was waited for: what may still be read, so that it cannot go on
    // for ever.
    std::optional<size_t> rest;
  };

  bool step();
  bool take_frames();
  bool take_frame(const protocol::Frame& frame);
  bool take_data(const protocol::Frame& frame);
  void pass_input();
  void close_input();
  void type_end();
  int patience(bool reads) const;
  bool waited_enough() const { return status_ && Clock::now() >= ended_at_ + kLeftBehind; }
  void read_source(Source& source);
  void end_source(Source& source);
  void look_for_end();
  void send_signal(int number);
  Source* source_of(uint8_t channel);
  bool protocol_error(std::string_view what);

  Connection* connection_;
  const pid_t pid_;
  const bool tty_;
  Fd signals_;
  Fd input_;
  std::string queue_;           // input that the command has not taken yet
  size_t queue_of_before_ = 0;  // bytes of it that came from a client that is gone
  bool input_ended_ = false;    // by the client
  bool input_dropped_ = false;  // nothing more is passed on
  bool end_in_raw_ = false;     // a terminal's: typed since it is in raw mode
  bool kept_ = false;           // for the next client, when this one is gone
  bool said_ = false;           // the client has the command's end
  protocol::ReceiveWindow input_window_;
  std::vector<Source> sources_;
  std::optional<protocol::ExitStatus> status_;
  Clock::time_point ended_at_;
};

Runner::Runner(Connection& connection, Child child, bool tty)
    : connection_(&connection), pid_(child.pid), tty_(tty), input_(std::move(child.input)) {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  signals_ = Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  set_nonblocking(input_.get(), true);
  set_nonblocking(child.output.get(), true);
  sources_.push_back({std::move(child.output), protocol::kOutput, {}, {}});
  if (tty) return;
  set_nonblocking(child.errors.get(), true);
  sources_.push_back({std::move(child.errors), protocol::kErrors, {}, {}});
}

void Runner::run() {
  put_number32(connection_->out(), FrameType::kStarted, static_cast<uint32_t>(pid_));
  look_for_end();
  while (step()) {
  }
  if (!status_ && !kept_) return hang_up();
  if (!status_ || (kept_ && !sources_.empty())) return;
  put_exit(connection_->out(), *status_);
  // Who keeps a command reads it to the end, and closes then.
  said_ = !kept_ || connection_->finish();
}

// What the first one had and has not told is gone with it.
void Runner::take_up(Connection& connection) {
  connection_ = &connection;
  queue_of_before_ = queue_.size();
  input_window_ = {};
  for (const uint8_t channel : {protocol::kOutput, protocol::kErrors}) {
    if (Source* source = source_of(channel))
      source->window = {};
    else if (!tty_ || channel == protocol::kOutput)
      put_frame(connection_->out(), FrameType::kEnd, {}, channel);
  }
  if (input_dropped_ && !input_ended_) put_frame(connection_->out(), FrameType::kDrop, {}, protocol::kInput);
}

// False: it is over.
bool Runner::step() {
  if (status_ && sources_.empty()) return false;
  std::vector<pollfd> waits;
  short wanted = connection_->out().size() < kOutHardLimit ? POLLIN : 0;
  if (!connection_->out().empty()) wanted |= POLLOUT;
  waits.push_back({connection_->fd(), wanted, 0});
  waits.push_back({signals_.get(), POLLIN, 0});
  // A pipe says by itself that nobody reads it any more; a terminal that has ended would say it for ever.
  const bool watch_input = !queue_.empty() || !tty_;
  waits.push_back({watch_input ? input_.get() : -1, static_cast<short>(queue_.empty() ? 0 : POLLOUT), 0});
  bool reads = false;
  for (const Source& source : sources_) {
    const bool room = source.window.available() > 0 && connection_->out().size() < kOutLimit;
    waits.push_back({room ? source.fd.get() : -1, POLLIN, 0});
    reads = reads || room;
  }
  if (tty_ && input_ended_ && queue_.empty()) type_end();
  const int ready = ::poll(waits.data(), waits.size(), patience(reads));
  if (ready < 0) return errno == EINTR;
  if (ready == 0 && tty_ && status_) end_source(sources_[0]);
  if ((waits[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
    // What came before the end is still carried out.
    const bool open = connection_->receive();
    if (!take_frames() || !open) return false;
  }
  if (!connection_->flush()) return false;
  if (waits[1].revents != 0) look_for_end();
  if (input_ && (waits[2].revents & POLLERR) != 0) close_input();
  if (input_ && (waits[2].revents & POLLOUT) != 0) pass_input();
  for (size_t i = 0, at = 3; at < waits.size(); ++at) {
    const size_t before = sources_.size();
    if (i < before && (waits[at].revents != 0 || (status_ && waits[at].fd >= 0))) read_source(sources_[i]);
    if (sources_.size() == before) ++i;
  }
  return connection_->flush();
}

// Milliseconds until there is something to do without an event; -1: never. `reads`: the client has room.
int Runner::patience(bool reads) const {
  if (!status_) return tty_ && input_ended_ ? kEndMilliseconds : -1;
  if (!reads) return -1;
  if (tty_) return kTerminalMilliseconds;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(ended_at_ + kLeftBehind - Clock::now());
  return static_cast<int>(std::max<int64_t>(left.count(), 0));
}

bool Runner::take_frames() {
  while (const auto frame = connection_->next())
    if (!take_frame(*frame)) return false;
  return !connection_->broken() || protocol_error("a frame that cannot be");
}

bool Runner::protocol_error(std::string_view what) {
  put_error(connection_->out(), protocol::ErrorCode::kFailed, what);
  return false;
}

bool Runner::take_frame(const protocol::Frame& frame) {
  switch (frame.type) {
    case FrameType::kData:
      return take_data(frame);
    case FrameType::kEnd:
      input_ended_ = true;
      if (queue_.empty()) close_input();
      return true;
    case FrameType::kCredit: {
      const auto count = protocol::decode_number32(frame.payload);
      Source* source = source_of(frame.channel);
      if (!count) return protocol_error("a malformed credit");
      // Of a channel that has ended since.
      if (source == nullptr) return true;
      return source->window.granted(*count) || protocol_error("more credit than there is");
    }
    case FrameType::kDrop:
      if (Source* source = source_of(frame.channel)) end_source(*source);
      return true;
    case FrameType::kSignal: {
      const auto number = protocol::decode_number32(frame.payload);
      if (!number || *number == 0 || *number >= NSIG) return protocol_error("no such signal");
      send_signal(static_cast<int>(*number));
      return true;
    }
    case FrameType::kResize: {
      const auto size = protocol::decode_resize(frame.payload);
      if (!size) return protocol_error("a malformed size");
      winsize window{};
      window.ws_row = size->rows;
      window.ws_col = size->columns;
      if (tty_ && input_) ::ioctl(input_.get(), TIOCSWINSZ, &window);
      return true;
    }
    case FrameType::kKeep:
      kept_ = true;
      return true;
    default:
      return protocol_error("a frame that does not belong to a command");
  }
}

bool Runner::take_data(const protocol::Frame& frame) {
  if (frame.channel != protocol::kInput || input_ended_) return protocol_error("data for no input");
  if (!input_window_.received(frame.payload.size())) return protocol_error("more input than allowed");
  // The command does not read any more: the client has been told, and may not know yet.
  if (input_dropped_) return true;
  queue_ += frame.payload;
  pass_input();
  return true;
}

void Runner::pass_input() {
  size_t passed = 0;
  while (passed < queue_.size()) {
    const ssize_t count = ::write(input_.get(), queue_.data() + passed, queue_.size() - passed);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) break;
    if (count < 0) return close_input();
    passed += static_cast<size_t>(count);
  }
  queue_.erase(0, passed);
  const size_t of_before = std::min(passed, queue_of_before_);
  queue_of_before_ -= of_before;
  if (const uint32_t credit = input_window_.consumed(passed - of_before); credit > 0)
    put_number32(connection_->out(), FrameType::kCredit, credit, protocol::kInput);
  if (input_ended_ && queue_.empty()) close_input();
}

void Runner::close_input() {
  if (!input_ || input_dropped_) return;
  input_dropped_ = true;
  if (!input_ended_) put_frame(connection_->out(), FrameType::kDrop, {}, protocol::kInput);
  if (!tty_) input_.reset();
  queue_.clear();
}

// A terminal has no end but the one that is typed, and each is the end for one reader only; behind an
// unfinished line it just passes that on. So whoever has read all there is and wants more gets another. To a
// program in raw mode it is a key like others, which is pressed once.
void Runner::type_end() {
  pollfd open{.fd = input_.get(), .events = 0, .revents = 0};
  termios settings{};
  if (::poll(&open, 1, 0) != 0 || ::tcgetattr(input_.get(), &settings) != 0) return;
  const bool raw = (settings.c_lflag & ICANON) == 0;
  if (raw && end_in_raw_) return;
  // Only its own end knows what has not been read yet.
  const Fd terminal(::ioctl(input_.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  pollfd unread{.fd = terminal.get(), .events = POLLIN, .revents = 0};
  if (!terminal || ::poll(&unread, 1, 0) != 0) return;
  (void)!::write(input_.get(), &settings.c_cc[VEOF], 1);
  // The mode may have changed between the look and the key: then that was the one.
  const bool raw_now = ::tcgetattr(input_.get(), &settings) == 0 && (settings.c_lflag & ICANON) == 0;
  end_in_raw_ = raw || raw_now;
}

void Runner::read_source(Source& source) {
  std::array<char, protocol::kDataChunk> buffer;
  size_t most = std::min<size_t>(buffer.size(), source.window.available());
  const bool last = !tty_ && waited_enough();
  if (last && !source.rest) {
    const int capacity = ::fcntl(source.fd.get(), F_GETPIPE_SZ);
    source.rest = capacity > 0 ? static_cast<size_t>(capacity) : size_t{64} * 1024;
  }
  if (source.rest) most = std::min(most, *source.rest);
  // The window is closed: it is not over yet.
  if (source.window.available() == 0) return;
  const ssize_t count = most > 0 ? ::read(source.fd.get(), buffer.data(), most) : 0;
  if (count < 0 && errno == EINTR) return;
  if (count < 0 && errno == EAGAIN) {
    if (last) end_source(source);
    return;
  }
  // EIO is how a terminal says that nobody has it open any more.
  if (count <= 0) return end_source(source);
  source.window.sent(static_cast<uint32_t>(count));
  if (source.rest) *source.rest -= static_cast<size_t>(count);
  put_frame(connection_->out(), FrameType::kData, {buffer.data(), static_cast<size_t>(count)},
            source.channel);
}

void Runner::end_source(Source& source) {
  put_frame(connection_->out(), FrameType::kEnd, {}, source.channel);
  const auto at = sources_.begin() + (&source - sources_.data());
  sources_.erase(at);
}

Runner::Source* Runner::source_of(uint8_t channel) {
  for (Source& source : sources_)
    if (source.channel == channel) return &source;
  return nullptr;
}

void Runner::look_for_end() {
  signalfd_siginfo info{};
  while (::read(signals_.get(), &info, sizeof info) > 0) {
  }
  int status = 0;
  if (status_ || ::waitpid(pid_, &status, WNOHANG) != pid_) return;
  status_.emplace();
  status_->signalled = WIFSIGNALED(status);
  status_->value = static_cast<uint8_t>(WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
  ended_at_ = Clock::now();
}

void Runner::send_signal(int number) {
  if (status_) return;
  ::kill(-pid_, number);
  const pid_t foreground = tty_ ? ::tcgetpgrp(input_.get()) : pid_;
  if (foreground > 0 && foreground != pid_) ::kill(-foreground, number);
}

void Runner::hang_up() {
  send_signal(SIGHUP);
  send_signal(SIGCONT);
}

}  // namespace

void run_command(Connection& connection, const protocol::ExecRequest& request,
                 const NextClient& next_client) {
  Child child;
  protocol::ErrorMessage error;
  if (!spawn(request, child, error)) return put_error(connection.out(), error.code, error.text);
  Runner runner(connection, std::move(child), request.tty);
  runner.run();
  for (std::unique_ptr<Connection> next; runner.is_left();) {
    next = next_client();
    if (!next) return runner.hang_up();
    runner.take_up(*next);
    runner.run();
  }
}

}  // namespace snug::agent
