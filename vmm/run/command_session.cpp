#include "vmm/run/command_session.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "vmm/base/file_status.h"

namespace snug {
namespace {

// As machinectl and others have it: the way out of a guest that does not answer any more.
constexpr char kEscape = 0x1d;  // Ctrl-]
constexpr int kEscapes = 3;
constexpr std::chrono::seconds kEscapeTime{1};

UniqueFd own_stream(int fd, int access_mode) {
  auto own = reopen_nonblocking(fd, access_mode);
  return own ? std::move(*own) : UniqueFd();
}

UniqueFd copy_of(const UniqueFd& fd) {
  auto copy = duplicate(fd.get());
  return copy ? std::move(*copy) : UniqueFd();
}

bool has_variable(const protocol::ExecRequest& request, std::string_view name) {
  for (const std::string& variable : request.variables)
    if (variable.starts_with(name)) return true;
  return false;
}

}  // namespace

CommandStreams CommandStreams::open() {
  return {own_stream(STDIN_FILENO, O_RDONLY), own_stream(STDOUT_FILENO, O_WRONLY),
          own_stream(STDERR_FILENO, O_WRONLY)};
}

std::optional<protocol::WindowSize> window_size() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    winsize size{};
    if (::ioctl(fd, TIOCGWINSZ, &size) == 0) return protocol::WindowSize{size.ws_row, size.ws_col};
  }
  return std::nullopt;
}

Result<std::unique_ptr<CommandSession>> CommandSession::start(EventLoop& loop, UniqueFd connection,
                                                              protocol::ExecRequest request, Options options,
                                                              std::function<void(ExecEnd)> ended,
                                                              ExecBefore before) {
  std::unique_ptr<CommandSession> command(new CommandSession);
  CommandSession* self = command.get();
  request.tty = options.tty;
  if (options.tty) {
    request.size = window_size().value_or(protocol::WindowSize{});
    const char* type = std::getenv("TERM");  // NOLINT(concurrency-mt-unsafe): nothing sets it
    if (type != nullptr && !has_variable(request, "TERM="))
      request.variables.push_back(fmt::format("TERM={}", type));
  }
  ExecSession::Streams streams;
  if (options.prints_here) {
    streams.output = copy_of(options.streams->output);
    streams.errors = copy_of(options.streams->errors);
  }
  const bool terminal = ::isatty(STDIN_FILENO) == 1;
  // In the background a read of the terminal would stop us.
  if (options.interactive && (!terminal || is_own_terminal(STDIN_FILENO))) {
    struct stat status {};
    // The command is not to work with an input that is none.
    if (file_status(STDIN_FILENO, status) && S_ISDIR(status.st_mode)) return fail_errno(EISDIR, "stdin");
    streams.input = copy_of(options.streams->input);
    if (options.tty && terminal)
      self->terminal_.emplace(SNUG_TRY(RawTerminal::enter(STDIN_FILENO, TerminalOutput::kUntouched)));
  }
  ExecSession::Events events;
  events.output = std::move(options.printed);
  events.started = std::move(options.started);
  events.ended = [self, ended = std::move(ended)](ExecEnd end) {
    self->terminal_.reset();
    ended(std::move(end));
  };
  if (self->terminal_) events.input = [self](std::string_view bytes) { self->on_input(bytes); };
  if (options.takes_up) {
    self->session_ =
        SNUG_TRY(ExecSession::take_up(loop, std::move(connection), std::move(streams), std::move(events)));
    return command;
  }
  self->session_ = SNUG_TRY(ExecSession::start(loop, std::move(connection), request, std::move(streams),
                                               std::move(events), ExecSession::kPatience, std::move(before)));
  return command;
}

void CommandSession::on_input(std::string_view bytes) {
  for (const char byte : bytes) {
    if (byte != kEscape) {
      escapes_ = 0;
      continue;
    }
    const auto now = std::chrono::steady_clock::now();
    if (escapes_ == 0 || now - first_escape_ > kEscapeTime) {
      escapes_ = 0;
      first_escape_ = now;
    }
    if (++escapes_ == kEscapes) return session_->abandon("left by Ctrl-] Ctrl-] Ctrl-]");
  }
}

void CommandSession::window_changed() {
  if (const auto size = window_size()) session_->resize(*size);
}

void CommandSession::suspend_terminal() {
  if (terminal_) terminal_->leave();
}

void CommandSession::resume_terminal() {
  if (terminal_) terminal_->reenter();
}

}  // namespace snug
