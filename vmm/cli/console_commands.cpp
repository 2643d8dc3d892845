#include "vmm/cli/console_commands.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "vmm/cli/machines.h"
#include "vmm/cli/put.h"
#include "vmm/control/vm_directory.h"
#include "vmm/host/escape.h"
#include "vmm/host/terminal.h"
#include "vmm/run/runner.h"

namespace snug::cli {
namespace {

constexpr std::chrono::milliseconds kLook{100};

// Copies what there is from `file` on. False when stdout takes no more.
bool print_rest(int file) {
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t count = ::read(file, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return true;
    if (!write_all(STDOUT_FILENO, {buffer.data(), static_cast<size_t>(count)})) return false;
  }
}

UniqueFd open_log(const FoundVm& vm, const std::string& file) {
  return UniqueFd(::open((vm.path + "/" + file).c_str(), O_RDONLY | O_CLOEXEC));
}

bool is_still(const UniqueFd& log, const FoundVm& vm, const std::string& file) {
  struct stat here {};
  struct stat there {};
  return ::fstat(log.get(), &here) == 0 && ::stat((vm.path + "/" + file).c_str(), &there) == 0 &&
         here.st_ino == there.st_ino;
}

int stdout_lost() {
  // Whoever reads has what it wanted.
  if (errno == EPIPE) return 0;
  put(stderr, "snug: cannot write to stdout: {}\n", errno_text(errno));
  return kStatusFailure;
}

Result<FoundVm> one_with_console(const std::string& name, const std::string& file) {
  FoundVm vm = SNUG_TRY(find_machine(name));
  if (::access((vm.path + "/" + file).c_str(), F_OK) != 0)
    return fail("the console of {} is not kept by snug: {}", name,
                vm.alive ? "it is where `snug run` was told to put it (snug inspect says where)"
                         : "it printed nothing");
  return vm;
}

// Between the terminal and the machine until one of them ends it.
int converse(int machine, std::optional<RawTerminal>& terminal) {
  EscapeFilter escape('d');
  bool input_open = true;
  std::array<char, 16384> buffer;
  std::vector<std::byte> typed;
  // As polled descriptors, so that the terminal is put back before they end us.
  sigset_t ends;
  ::sigemptyset(&ends);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&ends, number);
  ::sigprocmask(SIG_BLOCK, &ends, nullptr);
  const UniqueFd signals(::signalfd(-1, &ends, SFD_CLOEXEC));
  for (;;) {
    std::array<pollfd, 3> wait{pollfd{.fd = machine, .events = POLLIN, .revents = 0},
                               pollfd{.fd = input_open ? STDIN_FILENO : -1, .events = POLLIN, .revents = 0},
                               pollfd{.fd = signals.get(), .events = POLLIN, .revents = 0}};
    if (::poll(wait.data(), wait.size(), -1) < 0) {
      if (errno == EINTR) continue;
      return kStatusFailure;
    }
    if (wait[2].revents != 0) {
      signalfd_siginfo got{};
      (void)!::read(signals.get(), &got, sizeof got);
      return 128 + static_cast<int>(got.ssi_signo);
    }
    if (wait[0].revents != 0) {
      const ssize_t count = ::recv(machine, buffer.data(), buffer.size(), 0);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) {
        terminal.reset();
        put(stderr, "snug: the machine has ended\n");
        return 0;
      }
      if (!write_all(STDOUT_FILENO, {buffer.data(), static_cast<size_t>(count)})) return stdout_lost();
    }
    if (wait[1].revents == 0) continue;
    const ssize_t count = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    // A terminal that went away has no more to say.
    if (count < 0 && !(errno == EIO && terminal)) {
      put(stderr, "snug: stdin: {}\n", errno_text(errno));
      return kStatusFailure;
    }
    if (count <= 0) {
      input_open = false;
      continue;
    }
    const auto bytes = std::as_bytes(std::span(buffer).first(static_cast<size_t>(count)));
    typed.assign(bytes.begin(), bytes.end());
    if (terminal) {
      typed.clear();
      const EscapeCommand command = escape.feed(bytes, typed);
      if (command == EscapeCommand::kQuit) return 0;
      if (command == EscapeCommand::kHelp)
        put(stderr,
            "\r\nsnug: Ctrl-A d  leave; the machine runs on\r\nsnug: Ctrl-A Ctrl-A  send a Ctrl-A\r\n");
    }
    if (::send(machine, typed.data(), typed.size(), MSG_NOSIGNAL) < 0) input_open = false;
  }
}

int show_log_before(const Result<FoundVm>& vm, const std::string& file) {
  if (!vm) return fail_command(vm.error());
  const UniqueFd log = open_log(*vm, file);
  if (!log)
    return fail_command(Error{fmt::format("there is no log of a run of {} before this one", vm->name), {}});
  return print_rest(log.get()) ? 0 : stdout_lost();
}

}  // namespace

int show_log(const std::string& name, bool follow, LogKind kind, LogOf which) {
  const std::string suffix = which == LogOf::kRunBefore ? ".before" : "";
  // Of a command in the background.
  std::string file = "output.log" + suffix;
  const auto found = find_machine(name);
  if (kind == LogKind::kConsole || !found || ::access((found->path + "/" + file).c_str(), F_OK) != 0)
    file = "console.log" + suffix;
  if (which == LogOf::kRunBefore) return show_log_before(found, file);
  const auto vm = one_with_console(name, file);
  if (!vm) return fail_command(vm.error());
  if (const UniqueFd old = open_log(*vm, file + ".1"); old && !print_rest(old.get())) return stdout_lost();
  UniqueFd log = open_log(*vm, file);
  for (bool alive = follow && vm->alive;;) {
    if (log && !print_rest(log.get())) return stdout_lost();
    if (!alive) return 0;
    // Looked at before the last read: what came in between is not missed.
    alive = !wait_for_end(*vm, static_cast<int>(kLook.count()));
    if (alive && !is_still(log, *vm, file)) {
      if (log && !print_rest(log.get())) return stdout_lost();
      log = open_log(*vm, file);
    }
  }
}

int attach(const std::string& name) {
  const auto vm = one_with_console(name, "console.sock");
  if (!vm) return fail_command(vm.error());
  const auto machine = connect_to(*vm, "console.sock");
  if (!machine) return fail_command(machine.error());
  std::optional<RawTerminal> terminal;
  if (::isatty(STDIN_FILENO) == 1) {
    put(stderr, "snug: attached to {}; Ctrl-A d leaves\n", name);
    auto raw = RawTerminal::enter(STDIN_FILENO);
    if (!raw) return fail_command(raw.error());
    terminal.emplace(std::move(*raw));
  }
  const int status = converse(machine->get(), terminal);
  terminal.reset();
  return status;
}

}  // namespace snug::cli
