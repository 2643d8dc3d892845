#include "vmm/host/console.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <string_view>

#include "vmm/base/log.h"
#include "vmm/host/pty.h"

namespace snug {
namespace {

constexpr size_t kOutputLimit = 1 << 20;  // bytes buffered for a slow consumer
constexpr size_t kInputLimit = 4096;      // bytes taken from the host ahead of the guest
constexpr std::chrono::seconds kInputStall{2};
constexpr std::chrono::milliseconds kLongestRest{50};
constexpr std::string_view kHelp =
    "\r\nsnug: Ctrl-A x  quit (the guest stops at once)\r\n"
    "snug: Ctrl-A h  this help\r\n"
    "snug: Ctrl-A Ctrl-A  send a Ctrl-A to the guest\r\n";

bool writable_now(int fd, int timeout_ms) {
  pollfd request{.fd = fd, .events = POLLOUT, .revents = 0};
  return ::poll(&request, 1, timeout_ms) > 0;
}

}  // namespace

Result<std::unique_ptr<Console>> Console::open(const ConsoleSpec& spec, EventLoop& loop,
                                               std::function<void()> on_quit) {
  std::unique_ptr<Console> console(new Console(loop, std::move(on_quit)));
  SNUG_TRY(console->create_rest_timer());
  console->discards_output_ = spec.kind == ConsoleKind::kNone;
  switch (spec.kind) {
    case ConsoleKind::kStdio:
      SNUG_TRY(with_context(console->open_stdio(), "console"));
      break;
    case ConsoleKind::kFile:
      SNUG_TRY(with_context(console->open_file_output(spec.path), "console"));
      break;
    case ConsoleKind::kPty:
      SNUG_TRY(with_context(console->open_pty(), "console"));
      break;
    case ConsoleKind::kNone:
      break;
  }
  return console;
}

Result<std::unique_ptr<Console>> Console::open_socket(UniqueFd socket, EventLoop& loop) {
  std::unique_ptr<Console> console(new Console(loop, [] {}));
  SNUG_TRY(console->create_rest_timer());
  console->output_fd_ = SNUG_TRY(duplicate(socket.get()));
  console->input_fd_ = std::move(socket);
  return console;
}

Console::~Console() = default;

Result<void> Console::create_rest_timer() {
  rest_timer_ = SNUG_TRY(loop_.timer([this] {
    resting_ = false;
    pump_input();
  }));
  return {};
}

Result<void> Console::open_stdio() {
  // A closed stdin or stdout is a console that says nothing or hears nothing, not an error.
  if (auto fd = reopen_nonblocking(STDOUT_FILENO, O_WRONLY)) output_fd_ = std::move(*fd);
  struct stat status {};
  if (::fstat(STDIN_FILENO, &status) != 0) return {};
  // It would be an empty input without a word.
  if (S_ISDIR(status.st_mode)) return fail_errno(EISDIR, "stdin");
  const bool terminal = ::isatty(STDIN_FILENO) == 1;
  // In the background a read of the terminal would stop us.
  if (terminal && !is_own_terminal(STDIN_FILENO)) return {};
  auto fd = reopen_nonblocking(STDIN_FILENO, O_RDONLY);
  if (!fd) return {};
  input_fd_ = std::move(*fd);
  if (terminal) {
    escape_.emplace();
    stall_timer_ = SNUG_TRY(loop_.timer([this] { on_input_stalled(); }));
    terminal_.emplace(SNUG_TRY(RawTerminal::enter(STDIN_FILENO)));
  }
  return {};
}

Result<void> Console::open_file_output(const std::string& path) {
  output_fd_ = SNUG_TRY(open_file(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK, 0644));
  return {};
}

Result<void> Console::open_pty() {
  Pty pty = SNUG_TRY(snug::open_pty());
  input_fd_ = std::move(pty.master);
  pty_slave_ = std::move(pty.slave);
  pty_path_ = std::move(pty.path);
  output_fd_ = SNUG_TRY(duplicate(input_fd_.get()));
  return {};
}

void Console::connect(Receiver receiver) {
  ++connection_;
  // What the guest before it printed says nothing about this one.
  if (receiver) output_.lock()->tail = {};
  receiver_ = std::move(receiver);
  guest_open_ = false;
  update_input_watch();
}

// --- output -----------------------------------------------------------------------------------------

void Console::transmit(std::span<const std::byte> bytes) {
  auto output = output_.lock();
  output->tail.feed(bytes);
  if (discards_output_) return;
  if (output->bytes.size() + writing_size_ + bytes.size() > kOutputLimit) {
    dropped_ += bytes.size();
    return;
  }
  output->bytes.insert(output->bytes.end(), bytes.begin(), bytes.end());
  if (output->flush_posted) return;
  output->flush_posted = true;
  loop_.post([this] { flush(); });
}

ConsoleTail Console::tail() { return output_.lock()->tail; }

// One round, however fast the guest prints: others wait for the loop too.
void Console::flush() {
  if (written_ < writing_.size() && !write_some()) return;
  {
    auto output = output_.lock();
    writing_.clear();
    written_ = 0;
    std::swap(writing_, output->bytes);
    writing_size_ = writing_.size();
    // The next byte posts again; until then nothing is left to do.
    if (writing_.empty()) {
      output->flush_posted = false;
      return;
    }
  }
  if (write_some()) loop_.post([this] { flush(); });
}

bool Console::write_some() {
  while (written_ < writing_.size()) {
    if (!output_fd_ || output_lost_) {
      if (output_lost_) dropped_ += writing_.size() - written_;
      break;
    }
    // Where the descriptor could not be made non-blocking, a write of PIPE_BUF bytes to what poll calls
    // writable does not block.
    const size_t chunk = std::min<size_t>(writing_.size() - written_, PIPE_BUF);
    ssize_t count = -1;
    errno = EAGAIN;
    if (writable_now(output_fd_.get(), 0))
      count = ::write(output_fd_.get(), writing_.data() + written_, chunk);
    if (count >= 0) {
      written_ += static_cast<size_t>(count);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) {
      lose_output(errno_text(errno));
      continue;
    }
    watch_output();
    return false;
  }
  writing_.clear();
  written_ = 0;
  writing_size_ = 0;
  return true;
}

// A watch lives only while something waits: epoll reports a hang-up whether it was asked for or not.
void Console::watch_output() {
  auto watch = loop_.watch(output_fd_.get(), EPOLLOUT, [this](uint32_t) {
    output_watch_.reset();
    flush();
  });
  if (watch) output_watch_ = std::move(*watch);
}

void Console::lose_output(const std::string& why) {
  output_lost_ = true;
  output_watch_.reset();
  log_warn("console output: {}; what the guest prints from here on is lost", why);
}

void Console::finish(std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (;;) {
    flush();
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (written_ >= writing_.size() && output_.lock()->bytes.empty()) break;
    if (left.count() <= 0) break;
    writable_now(output_fd_.get(), static_cast<int>(left.count()));
  }
  dropped_ += writing_.size() - written_ + output_.lock()->bytes.size();
  writing_.clear();
  written_ = 0;
  output_.lock()->bytes.clear();
  if (dropped_ > 0) log_warn("console output: {} bytes dropped because nobody took them", dropped_.load());
}

// --- input ------------------------------------------------------------------------------------------

void Console::guest_opened() {
  loop_.post([this, connection = connection_] {
    if (connection != connection_) return;
    guest_open_ = true;
    pump_input();
  });
}

void Console::input_space() {
  loop_.post([this] {
    if (!input_.empty()) let_the_guest_rest();
  });
}

// A paste must not keep the guest in its interrupt handler for ever: it gets as long for itself as it took to
// read what it was given.
void Console::let_the_guest_rest() {
  if (resting_) return;
  const auto busy = std::chrono::steady_clock::now() - handed_over_;
  resting_ = true;
  rest_timer_.arm(std::min<std::chrono::nanoseconds>(busy, kLongestRest));
}

void Console::update_input_watch() {
  // A read of the terminal from the background would stop us.
  if (!input_fd_ || input_ended_ || suspended_) return;
  const bool room = input_.size() < kInputLimit;
  const bool wanted = discarding_ || (room && (guest_open_ || escape_.has_value()));
  if (!wanted) {
    input_watch_.reset();
    if (escape_) stall_timer_.arm(kInputStall);
    return;
  }
  if (input_watch_) return;
  if (!input_pollable_) return post_read();
  auto watch = loop_.watch(input_fd_.get(), EPOLLIN, [this](uint32_t) { read_input(); });
  if (watch) {
    input_watch_ = std::move(*watch);
    return;
  }
  // epoll refuses regular files: they are always readable.
  input_pollable_ = false;
  post_read();
}

// One read for each turn of the loop.
void Console::post_read() {
  if (read_posted_) return;
  read_posted_ = true;
  loop_.post([this] {
    read_posted_ = false;
    if (!input_ended_ && (discarding_ || input_.size() < kInputLimit)) read_input();
  });
}

// On a terminal Ctrl-A x must be seen however much the guest leaves unread: when it has taken nothing for a
// while, what is typed is dropped until it takes something again.
void Console::on_input_stalled() {
  if (input_.size() < kInputLimit) return;
  discarding_ = true;
  log_warn("the guest does not read its console: input is dropped until it does (Ctrl-A x quits)");
  update_input_watch();
}

void Console::read_input() {
  std::array<std::byte, kInputLimit> buffer;
  const size_t room = discarding_ ? kInputLimit : kInputLimit - std::min(input_.size(), kInputLimit);
  const ssize_t count = ::read(input_fd_.get(), buffer.data(), room);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  // EIO: a terminal that went away. The guest runs on without input.
  if (count <= 0) {
    input_ended_ = true;
    input_watch_.reset();
    return;
  }
  take_input(std::span(buffer).first(static_cast<size_t>(count)));
  pump_input();
}

void Console::take_input(std::span<const std::byte> bytes) {
  if (!escape_) {
    input_.insert(input_.end(), bytes.begin(), bytes.end());
    return;
  }
  std::vector<std::byte> typed;
  const EscapeCommand command = escape_->feed(bytes, typed);
  if (!discarding_) input_.insert(input_.end(), typed.begin(), typed.end());
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

void Console::pump_input() {
  if (receiver_ && guest_open_ && !resting_ && !input_.empty()) {
    const size_t taken = receiver_(input_);
    input_.erase(input_.begin(), input_.begin() + static_cast<std::ptrdiff_t>(taken));
    if (taken > 0) {
      handed_over_ = std::chrono::steady_clock::now();
      discarding_ = false;
      stall_timer_.disarm();
    }
  }
  update_input_watch();
}

void Console::suspend_terminal() {
  if (!terminal_) return;
  suspended_ = true;
  input_watch_.reset();
  terminal_->leave();
}

void Console::resume_terminal() {
  if (!terminal_) return;
  suspended_ = false;
  terminal_->reenter();
  update_input_watch();
}

}  // namespace snug
