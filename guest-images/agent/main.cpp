// snug-agent: runs commands in the guest for snug (PROTOCOL.md).
//
//   snug-agent               a service: listens on the vsock port, calls the host once
//   snug-agent --init [CONSOLE]
//                            the same as the guest's first program: reaps, heeds the power button and what
//                            poweroff(8) and reboot(8) send, and without vsock powers the machine off instead
//                            of waiting for nobody. CONSOLE runs beside it; its end, unless it was killed, is
//                            the machine's
//   /init                    as --init, and first of all makes the guest ready (first_program.h); without the
//                            word snug.agent on the kernel's command line a shell runs on the console; with
//                            snug.init=PROGRAM that becomes the first program, and this runs beside it
//   with snug.late on the kernel's command line, as the first program: what belongs to one run waits until
//   the
//                            host says so; with snug.late=root the root too
//   snug-agent --wait        in an initramfs that mounts the root itself: with snug.late=init on the kernel's
//                            command line returns when the host says so, else at once
//   snug-agent --unix PATH   listens on a unix socket instead, for tests
#include <fcntl.h>
#include <linux/input.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>

#include <array>
#include <string>
#include <string_view>

#include "guest-images/agent/first_program.h"
#include "guest-images/agent/go_on.h"
#include "guest-images/agent/mount.h"
#include "guest-images/agent/session.h"
#include "guest-images/agent/small_files.h"

namespace snug::agent {
namespace {

constexpr int kSessionsMax = 256;

void say(const std::string& text) {
  const std::string line = "snug-agent: " + text + "\n";
  (void)!::write(STDERR_FILENO, line.data(), line.size());
}

std::string reason() { return std::strerror(errno); }

// Beside a first program of the image's own, which is to end the guest.
bool is_beside = false;

bool is_systemd(const std::string& program) {
  return program.size() >= 8 && program.substr(program.size() - 8) == "/systemd";
}

// One that is still on its way up takes no signals yet: it is asked until the guest is gone, in a process of
// its own. systemd has its own signals; others do as busybox's init does.
void ask_first_program(bool off) {
  if (::fork() != 0) return;
  for (;;) {
    std::array<char, 256> program{};
    (void)!::readlink("/proc/1/exe", program.data(), program.size() - 1);
    if (is_systemd(program.data()))
      ::kill(1, off ? SIGRTMIN + 4 : SIGRTMIN + 5);
    else
      ::kill(1, off ? SIGUSR2 : SIGTERM);
    ::sleep(3);
  }
}

void power(protocol::PowerAction action) {
  const bool off = action == protocol::PowerAction::kOff;
  if (is_beside) return ask_first_program(off);
  // systemd takes these as "start poweroff.target" and "start reboot.target".
  if (::getpid() != 1 && ::access("/run/systemd/system", F_OK) == 0) {
    ::kill(1, off ? SIGRTMIN + 4 : SIGRTMIN + 5);
    return;
  }
  ::sync();
  ::reboot(off ? RB_POWER_OFF : RB_AUTOBOOT);
}

Fd listen_vsock(uint32_t port = protocol::kAgentPort) {
  Fd fd(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = VMADDR_CID_ANY;
  address.svm_port = port;
  if (!fd || ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(fd.get(), SOMAXCONN) != 0)
    return {};
  return fd;
}

Fd listen_unix(const char* path) {
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (std::strlen(path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return {};
  }
  std::strcpy(address.sun_path, path);
  if (!fd || ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(fd.get(), SOMAXCONN) != 0)
    return {};
  return fd;
}

// The host's next connection to a command that was kept. Whoever has the port waits for it as well.
Fd accept_next() {
  static Fd listener;
  if (!listener) listener = listen_vsock(protocol::kKeptPort);
  while (listener) {
    pollfd wait{listener.get(), POLLIN, 0};
    if (::poll(&wait, 1, -1) <= 0) continue;
    sockaddr_vm peer{};
    socklen_t size = sizeof peer;
    Fd fd(::accept4(listener.get(), reinterpret_cast<sockaddr*>(&peer), &size, SOCK_CLOEXEC));
    if (fd && peer.svm_cid == VMADDR_CID_HOST) return fd;
  }
  return {};
}

// Tells the host that commands, or the word to begin, can come now. A host that does not listen has no use
// for it. In a process of its own: the driver may be a moment late, and nobody else has to wait for it.
void call_host(uint32_t port) {
  if (::fork() != 0) return;
  for (int attempt = 0; attempt < 100; ++attempt) {
    const Fd fd(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_vm address{};
    address.svm_family = AF_VSOCK;
    address.svm_cid = VMADDR_CID_HOST;
    address.svm_port = port;
    if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) break;
    if (errno != ENODEV && errno != ENETUNREACH) break;
    ::usleep(50'000);
  }
  ::_exit(0);
}

// Before the first session, or two of them would.
void mount_terminals() {
  if (::geteuid() != 0 || ::access("/dev/pts/ptmx", F_OK) == 0) return;
  ::mkdir("/dev/pts", 0755);
  ::mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=620,ptmxmode=666");
}

// What init is asked for by the signals of poweroff(8), halt(8) and reboot(8).
const std::array<std::pair<int, protocol::PowerAction>, 4> kPowerSignals{
    {{SIGUSR1, protocol::PowerAction::kOff},
     {SIGUSR2, protocol::PowerAction::kOff},
     {SIGTERM, protocol::PowerAction::kReset},
     {SIGINT, protocol::PowerAction::kReset}}};

class Agent {
 public:
  // `console`: the program to run on the console; "": a shell of the guest's; null for none.
  Agent(Fd listener, bool is_init, const char* console);
  [[noreturn]] void run();

 private:
  void take_signals();
  void reap();
  void start_console();
  void accept_one();
  void power_button();

  Fd listener_;
  Fd signals_;
  Fd button_;
  const char* console_;
  pid_t console_pid_ = -1;
  int children_ = 0;
};

Agent::Agent(Fd listener, bool is_init, const char* console)
    : listener_(std::move(listener)), console_(console) {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGCHLD);
  if (is_init)
    for (const auto& [number, action] : kPowerSignals) ::sigaddset(&set, number);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  signals_ = Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  // Those whom a command leaves behind are ours to bury.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  if (is_init || is_beside) button_ = Fd(::open("/dev/input/event0", O_RDONLY | O_CLOEXEC | O_NONBLOCK));
}

void Agent::run() {
  start_console();
  for (;;) {
    std::array<pollfd, 3> waits{{{children_ < kSessionsMax ? listener_.get() : -1, POLLIN, 0},
                                 {signals_.get(), POLLIN, 0},
                                 {button_.get(), POLLIN, 0}}};
    if (::poll(waits.data(), waits.size(), -1) <= 0) continue;
    if (waits[1].revents != 0) take_signals();
    if (waits[0].revents != 0) accept_one();
    if (waits[2].revents != 0) power_button();
  }
}

void Agent::take_signals() {
  signalfd_siginfo info{};
  while (::read(signals_.get(), &info, sizeof info) > 0)
    for (const auto& [number, action] : kPowerSignals)
      if (info.ssi_signo == static_cast<uint32_t>(number)) power(action);
  reap();
}

void Agent::reap() {
  int status = 0;
  for (pid_t pid; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
    if (pid == console_pid_) {
      // One that was killed, by "kill -9 -1" for instance, was not left.
      if (!WIFSIGNALED(status)) power(protocol::PowerAction::kOff);
      start_console();
      continue;
    }
    // Orphans make this less than it is: the bound is a rough one.
    if (children_ > 0) --children_;
  }
}

void Agent::start_console() {
  if (console_ == nullptr) return;
  console_pid_ = ::fork();
  if (console_pid_ != 0) return;
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  if (*console_ == '\0') {
    run_shell();
    ::_exit(127);
  }
  ::execl(console_, console_, static_cast<char*>(nullptr));
  say(std::string(console_) + ": " + reason());
  ::_exit(127);
}

void Agent::accept_one() {
  Fd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!connection) return;
  const pid_t pid = ::fork();
  if (pid > 0) ++children_;
  if (pid != 0) return;
  listener_.reset();
  signals_.reset();
  button_.reset();
  serve(std::move(connection), {set_clock, power, mount_share, go_on, nullptr, accept_next, readdress});
  ::_exit(0);
}

void Agent::power_button() {
  input_event event{};
  while (::read(button_.get(), &event, sizeof event) == static_cast<ssize_t>(sizeof event))
    if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1)
      power(protocol::PowerAction::kOff);
}

// Of a guest that was told to begin: it is there before the host knows, who asks for more at once.
Fd listener_of_begun;

std::string begin_and_listen(const protocol::Begin& request) {
  if (std::string why = begin_run(request); !why.empty()) return why;
  listener_of_begun = listen_vsock();
  return listener_of_begun ? std::string() : "vsock: " + reason();
}

// Commands find nobody meanwhile, as while the guest boots. One client after the other: there is one host.
// Without vsock nobody is waited for.
Fd wait_to_begin(std::string (*begin)(const protocol::Begin&)) {
  const Fd listener = listen_vsock(protocol::kWaitingPort);
  if (!listener) return {};
  call_host(protocol::kWaitingPort);
  for (bool begun = false; !begun;) {
    pollfd wait{listener.get(), POLLIN, 0};
    if (::poll(&wait, 1, -1) <= 0) continue;
    Fd connection(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (connection) begun = serve(std::move(connection), {set_clock, power, mount_share, go_on, begin});
  }
  return std::move(listener_of_begun);
}

}  // namespace
}  // namespace snug::agent

int main(int argc, char** argv) {
  using namespace snug::agent;
  const bool is_first = is_first_program(argv[0]);
  const std::string_view word = argc > 1 && !is_first ? argv[1] : "";
  bool is_init = is_first || word == "--init";
  const bool is_unix = word == "--unix" && argc == 3;
  const bool only_waits = word == "--wait" && argc == 2;
  if (!word.empty() && !is_init && !is_unix && !only_waits) {
    say("usage: snug-agent [--init [CONSOLE] | --wait | --unix PATH]");
    return 2;
  }
  ::signal(SIGPIPE, SIG_IGN);
  if (only_waits) {
    if (waits_to_hand_over()) (void)wait_to_begin(take_addresses);
    return 0;
  }
  const char* console = word == "--init" && argc > 2 ? argv[2] : nullptr;
  Fd listener;
  if (is_first) begin_guest();
  // Who was told to begin is known to be there.
  if (is_init && waits_to_begin()) listener = wait_to_begin(begin_and_listen);
  const bool told = static_cast<bool>(listener);
  if (is_first) {
    is_beside = hand_over();
    is_init = !is_beside;
    if (is_init && read_file("/proc/cmdline").find("snug.agent") == std::string::npos) console = "";
  }
  if (!listener) listener = is_unix ? listen_unix(argv[2]) : listen_vsock();
  if (!listener) {
    say((is_unix ? std::string(argv[2]) : "vsock") + ": " + reason());
    if (is_init) power(snug::protocol::PowerAction::kOff);
    return 1;
  }
  if (!is_unix) mount_terminals();
  Agent agent(std::move(listener), is_init, console);
  if (!is_unix && !told) call_host(snug::protocol::kCallPort);
  agent.run();
}
