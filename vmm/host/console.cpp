#include "vmm/host/console.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/host/pty.h"

namespace snug {

Result<std::unique_ptr<Console>> Console::open(const ConsoleSpec& spec, EventLoop& loop,
                                               std::function<void()> on_quit) {
  std::unique_ptr<Console> console(new Console(loop));
  SNUG_TRY(with_context(console->open_ends(spec, std::move(on_quit)), "console"));
  return console;
}

Result<std::unique_ptr<Console>> Console::open_again(const ConsoleSpec& spec, EventLoop& loop) {
  if (spec.kind == ConsoleKind::kPty) return fail("console: a pty stays with the process that has made it");
  if (spec.kind != ConsoleKind::kFile) return open(spec, loop, {});
  std::unique_ptr<Console> console(new Console(loop));
  console->output_.open(SNUG_TRY(
      with_context(open_file(spec.path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK, 0644), "console")));
  console->input_ = SNUG_TRY(ConsoleInput::create(loop, {}));
  return console;
}

Result<std::unique_ptr<Console>> Console::open_socket(UniqueFd socket, EventLoop& loop) {
  std::unique_ptr<Console> console(new Console(loop));
  console->output_.open(SNUG_TRY(duplicate(socket.get())));
  console->input_ = SNUG_TRY(ConsoleInput::create(loop, std::move(socket)));
  return console;
}

Result<void> Console::open_ends(const ConsoleSpec& spec, std::function<void()> on_quit) {
  switch (spec.kind) {
    case ConsoleKind::kStdio:
      return open_stdio(std::move(on_quit));
    case ConsoleKind::kFile:
      output_.open(SNUG_TRY(open_file(spec.path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK, 0644)));
      break;
    case ConsoleKind::kPty:
      return open_pty();
    case ConsoleKind::kNone:
      break;
  }
  input_ = SNUG_TRY(ConsoleInput::create(loop_, {}));
  return {};
}

Result<void> Console::open_stdio(std::function<void()> on_quit) {
  // A closed stdin or stdout is a console that hears nothing or says nothing, not an error.
  if (auto fd = reopen_nonblocking(STDOUT_FILENO, O_WRONLY)) output_.open(std::move(*fd));
  struct stat status {};
  const bool open = ::fstat(STDIN_FILENO, &status) == 0;
  // It would be an empty input without a word.
  if (open && S_ISDIR(status.st_mode))
    return fail_with_hint("stdin: is a folder", "give it a file, or nothing: </dev/null");
  const bool terminal = ::isatty(STDIN_FILENO) == 1;
  UniqueFd fd;
  // In the background a read of the terminal would stop us.
  if (open && (!terminal || is_own_terminal(STDIN_FILENO)))
    if (auto own = reopen_nonblocking(STDIN_FILENO, O_RDONLY)) fd = std::move(*own);
  if (terminal && fd)
    input_ = SNUG_TRY(ConsoleInput::create_on_terminal(loop_, std::move(fd), std::move(on_quit)));
  else
    input_ = SNUG_TRY(ConsoleInput::create(loop_, std::move(fd)));
  return {};
}

Result<void> Console::open_pty() {
  Pty pty = SNUG_TRY(snug::open_pty());
  pty_slave_ = std::move(pty.slave);
  pty_path_ = std::move(pty.path);
  output_.open(SNUG_TRY(duplicate(pty.master.get())));
  input_ = SNUG_TRY(ConsoleInput::create(loop_, std::move(pty.master)));
  return {};
}

void Console::connect(Receiver receiver) {
  // What the guest before it printed says nothing about this one.
  if (receiver) output_.forget_tail();
  input_->connect(std::move(receiver));
}

}  // namespace snug
