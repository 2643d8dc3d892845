#include "guest-images/agent/spawn.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstring>

#include <array>
#include <cstdlib>
#include <vector>

#include "guest-images/agent/users.h"

namespace snug::agent {
namespace {

constexpr const char* kPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

enum class Step : int { kFolder, kUser, kTerminal, kProgram };

// What the new process tells the old one when it cannot become the command.
struct Failure {
  Step step;
  int error;
};

struct Ends {
  Fd input, output, errors;  // the command's
  Fd terminal;               // the same, when it is one
};

bool make_pipe(Fd& read_end, Fd& write_end) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return false;
  read_end = Fd(ends[0]);
  write_end = Fd(ends[1]);
  return true;
}

bool open_terminal(const protocol::WindowSize& size, Child& child, Ends& theirs) {
  Fd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!master || ::unlockpt(master.get()) != 0) return false;
  theirs.terminal = Fd(::ioctl(master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!theirs.terminal) return false;
  winsize window{};
  window.ws_row = size.rows != 0 ? size.rows : 24;
  window.ws_col = size.columns != 0 ? size.columns : 80;
  ::ioctl(master.get(), TIOCSWINSZ, &window);
  child.input = Fd(::fcntl(master.get(), F_DUPFD_CLOEXEC, 3));
  child.output = std::move(master);
  return static_cast<bool>(child.input);
}

std::string name_of(const std::string& variable) { return variable.substr(0, variable.find('=')); }

// The variables asked for, and those that every program expects.
std::vector<std::string> environment(const protocol::ExecRequest& request, const User& user) {
  std::vector<std::string> all = request.variables;
  const auto add = [&](const char* name, const std::string& value) {
    for (const std::string& variable : request.variables)
      if (name_of(variable) == name) return;
    all.push_back(std::string(name) + "=" + value);
  };
  add("PATH", kPath);
  add("HOME", user.home);
  add("USER", user.name);
  add("LOGNAME", user.name);
  add("SHELL", user.shell);
  if (request.tty) add("TERM", "linux");
  return all;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> list;
  for (std::string& text : texts) list.push_back(text.data());
  list.push_back(nullptr);
  return list;
}

void default_signals() {
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

bool become(const User& user) {
  if (user.uid == ::geteuid() && user.gid == ::getegid() && user.groups.empty()) return true;
  return ::setgroups(user.groups.size(), user.groups.data()) == 0 && ::setgid(user.gid) == 0 &&
         ::setuid(user.uid) == 0;
}

// In the new process, which has the old one's memory while that waits for it. Comes back only when it fails.
Failure become_command(const protocol::ExecRequest& request, const User& user, char** argv, char** envp,
                       const Ends& ends) {
  default_signals();
  ::setsid();
  if (ends.terminal && ::ioctl(ends.terminal.get(), TIOCSCTTY, 0) != 0) return {Step::kTerminal, errno};
  if (ends.terminal && ::fchown(ends.terminal.get(), user.uid, static_cast<gid_t>(-1)) != 0)
    return {Step::kTerminal, errno};
  const int terminal = ends.terminal.get();
  ::dup2(terminal >= 0 ? terminal : ends.input.get(), 0);
  ::dup2(terminal >= 0 ? terminal : ends.output.get(), 1);
  ::dup2(terminal >= 0 ? terminal : ends.errors.get(), 2);
  // Or the user could not open them again, as /dev/stdout.
  for (const int fd : {0, 1, 2})
    if (terminal < 0 && user.uid != ::geteuid()) (void)!::fchown(fd, user.uid, static_cast<gid_t>(-1));
  if (!become(user)) return {Step::kUser, errno};
  if (!request.folder.empty()) {
    if (::chdir(request.folder.c_str()) != 0) return {Step::kFolder, errno};
  } else if (::chdir(user.home.c_str()) != 0) {
    (void)!::chdir("/");
  }
  // Where the program is looked for is the command's to say; the old one gets its own back (spawn()).
  environ = envp;
  ::execvp(argv[0], argv);
  return {Step::kProgram, errno};
}

void explain(const protocol::ExecRequest& request, const Failure& failure, protocol::ErrorMessage& error) {
  const std::string reason = ::strerror(failure.error);
  error.code = protocol::ErrorCode::kFailed;
  switch (failure.step) {
    case Step::kFolder:
      error.text = "folder " + request.folder + " of the guest: " + reason;
      return;
    case Step::kUser:
      error.text = "become user " + request.user + " in the guest: " + reason;
      return;
    case Step::kTerminal:
      error.text = "terminal in the guest: " + reason;
      return;
    case Step::kProgram:
      break;
  }
  const bool missing = failure.error == ENOENT || failure.error == ENOTDIR;
  error.code = missing ? protocol::ErrorCode::kNotFound : protocol::ErrorCode::kNotExecutable;
  error.text = request.arguments[0] + (missing ? ": not found in the guest" : ": " + reason);
}

bool open_ends(const protocol::ExecRequest& request, Child& child, Ends& theirs) {
  if (request.tty) return open_terminal(request.size, child, theirs);
  return make_pipe(theirs.input, child.input) && make_pipe(child.output, theirs.output) &&
         make_pipe(child.errors, theirs.errors);
}

}  // namespace

bool spawn(const protocol::ExecRequest& request, Child& child, protocol::ErrorMessage& error) {
  error.code = protocol::ErrorCode::kFailed;
  const auto user = find_user(request.user, error.text);
  if (!user) return false;
  Ends theirs;
  Fd report, report_end;
  if (!make_pipe(report, report_end) || !open_ends(request, child, theirs)) {
    error.text = std::string("descriptors for the command in the guest: ") + ::strerror(errno);
    return false;
  }
  std::vector<std::string> arguments = request.arguments;
  std::vector<std::string> variables = environment(request, *user);
  const std::vector<char*> argv = pointers(arguments);
  const std::vector<char*> envp = pointers(variables);
  // A copy of our memory for what lives so short would cost most of what it takes to start a command.
  char** const own_environment = environ;
  child.pid = ::vfork();
  if (child.pid < 0) {
    error.text = std::string("fork in the guest: ") + ::strerror(errno);
    return false;
  }
  if (child.pid == 0) {
    const Failure failure = become_command(request, *user, const_cast<char**>(argv.data()),
                                           const_cast<char**>(envp.data()), theirs);
    (void)!::write(report_end.get(), &failure, sizeof failure);
    ::_exit(127);
  }
  environ = own_environment;
  report_end.reset();
  Failure failure{};
  ssize_t count;
  do count = ::read(report.get(), &failure, sizeof failure);
  while (count < 0 && errno == EINTR);
  if (count != static_cast<ssize_t>(sizeof failure)) return true;
  explain(request, failure, error);
  return false;
}

}  // namespace snug::agent
