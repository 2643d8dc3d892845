#include "vmm/host/console_input.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <string_view>

#include "vmm/base/log.h"

namespace snug {
namespace {

constexpr size_t kLimit = 4096;  // bytes taken from the host ahead of the guest
constexpr std::chrono::seconds kStall{2};
constexpr std::chrono::milliseconds kLongestRest{50};
constexpr std::string_view kHelp =
    "\r\nsnug: Ctrl-A x  quit (the guest stops at once)\r\n"
    "snug: Ctrl-A h  this help\r\n"
    "snug: Ctrl-A Ctrl-A  send a Ctrl-A to the guest\r\n";

}  // namespace

Result<std::unique_ptr<ConsoleInput>> ConsoleInput::create(EventLoop& loop, UniqueFd fd) {
  std::unique_ptr<ConsoleInput> input(new ConsoleInput(loop, std::move(fd)));
  input->rest_timer_ = SNUG_TRY(loop.timer([input = input.get()] {
    input->resting_ = false;
    input->pump();
  }));
  return input;
}

Result<std::unique_ptr<ConsoleInput>> ConsoleInput::create_on_terminal(EventLoop& loop, UniqueFd fd,
                                                                       std::function<void()> on_quit) {
  auto input = SNUG_TRY(create(loop, std::move(fd)));
  input->on_quit_ = std::move(on_quit);
  input->escape_.emplace();
  input->stall_timer_ = SNUG_TRY(loop.timer([input = input.get()] { input->on_stalled(); }));
  input->terminal_.emplace(SNUG_TRY(RawTerminal::enter(STDIN_FILENO)));
  return input;
}

void ConsoleInput::connect(SerialPeer::Receiver receiver) {
  ++connection_;
  receiver_ = std::move(receiver);
  guest_open_ = false;
  update_watch();
}

void ConsoleInput::guest_opened() {
  loop_.post([this, connection = connection_] {
    if (connection != connection_) return;
    guest_open_ = true;
    pump();
  });
}

void ConsoleInput::input_space() {
  loop_.post([this] {
    if (!bytes_.empty()) let_the_guest_rest();
  });
}

// A paste must not keep the guest in its interrupt handler for ever: it gets as long for itself as it took to
// read what it was given.
void ConsoleInput::let_the_guest_rest() {
  if (resting_) return;
  const auto busy = std::chrono::steady_clock::now() - handed_over_;
  resting_ = true;
  rest_timer_.arm(std::min<std::chrono::nanoseconds>(busy, kLongestRest));
}

void ConsoleInput::update_watch() {
  // A read of the terminal from the background would stop us.
  if (!fd_ || ended_ || suspended_) return;
  const bool room = bytes_.size() < kLimit;
  const bool wanted = discarding_ || (room && (guest_open_ || escape_.has_value()));
  if (!wanted) {
    watch_.reset();
    if (escape_) stall_timer_.arm(kStall);
    return;
  }
  if (watch_) return;
  if (!pollable_) return post_read();
  auto watching = loop_.watch(fd_.get(), EPOLLIN, [this](uint32_t) { read(); });
  if (watching) {
    watch_ = std::move(*watching);
    return;
  }
  // epoll refuses regular files: they are always readable.
  pollable_ = false;
  post_read();
}

// One read for each turn of the loop.
void ConsoleInput::post_read() {
  if (read_posted_) return;
  read_posted_ = true;
  loop_.post([this] {
    read_posted_ = false;
    if (!ended_ && (discarding_ || bytes_.size() < kLimit)) read();
  });
}

// On a terminal Ctrl-A x must be seen however much the guest leaves unread: when it has taken nothing for a
// while, what is typed is dropped until it takes something again.
void ConsoleInput::on_stalled() {
  if (bytes_.size() < kLimit) return;
  discarding_ = true;
  log_warn("the guest does not read its console: input is dropped until it does (Ctrl-A x quits)");
  update_watch();
}

void ConsoleInput::read() {
  std::array<std::byte, kLimit> buffer;
  const size_t room = discarding_ ? kLimit : kLimit - std::min(bytes_.size(), kLimit);
  const ssize_t count = ::read(fd_.get(), buffer.data(), room);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  // EIO: a terminal that went away. The guest runs on without input.
  if (count <= 0) {
    ended_ = true;
    watch_.reset();
    return;
  }
  take(std::span(buffer).first(static_cast<size_t>(count)));
  pump();
}

void ConsoleInput::take(std::span<const std::byte> bytes) {
  if (!escape_) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return;
  }
  std::vector<std::byte> typed;
  const EscapeCommand command = escape_->feed(bytes, typed);
  if (!discarding_) bytes_.insert(bytes_.end(), typed.begin(), typed.end());
  switch (command) {
    case EscapeCommand::kNone:
      break;
    case EscapeCommand::kQuit:
      on_quit_();
      break;
    case EscapeCommand::kHelp: {
      [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kHelp.data(), kHelp.size());
      break;
    }
  }
}

void ConsoleInput::pump() {
  if (receiver_ && guest_open_ && !resting_ && !bytes_.empty()) {
    const size_t taken = receiver_(bytes_);
    bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(taken));
    if (taken > 0) {
      handed_over_ = std::chrono::steady_clock::now();
      discarding_ = false;
      stall_timer_.disarm();
    }
  }
  update_watch();
}

void ConsoleInput::suspend_terminal() {
  if (!terminal_) return;
  suspended_ = true;
  watch_.reset();
  terminal_->leave();
}

void ConsoleInput::resume_terminal() {
  if (!terminal_) return;
  suspended_ = false;
  terminal_->reenter();
  update_watch();
}

}  // namespace snug
