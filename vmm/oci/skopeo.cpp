#include "vmm/oci/skopeo.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <vector>

#include "vmm/base/unique_fd.h"
#include "vmm/host/passt.h"

namespace snug::oci {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr size_t kLogMax = 64 << 10;
constexpr int kLookEveryMs = 200;
// What skopeo writes into the layout while it comes; then it gets its digest for a name, among the blobs.
constexpr std::string_view kComing = "oci-put-blob";

struct Pipe {
  UniqueFd from, to;
};

Result<Pipe> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

// A program that runs: killed and waited for, unless its end has been seen.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    (void)wait();
  }
  // The status of waitpid(2).
  int wait() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) continue;
    pid_ = -1;
    return status;
  }

 private:
  pid_t pid_;
};

// In our own process group: Ctrl-Z stops both. System calls only behind fork(2).
Result<pid_t> start(const std::string& program, const std::vector<std::string>& arguments, int output,
                    int log, const sigset_t& mask) {
  std::vector<char*> words;
  for (const std::string& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "start {}", program);
  if (pid > 0) return pid;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);
  ::sigprocmask(SIG_SETMASK, &mask, nullptr);
  const int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (::dup2(nothing, STDIN_FILENO) >= 0 && ::dup2(output, STDOUT_FILENO) >= 0 &&
      ::dup2(log, STDERR_FILENO) >= 0)
    ::execv(program.c_str(), words.data());
  const char* why = "it cannot be executed\n";
  (void)!::write(log, why, std::char_traits<char>::length(why));
  ::_exit(127);
}

// What comes, seen from outside: by the files that it becomes.
class Arrivals {
 public:
  explicit Arrivals(const CopyRequest& request)
      : layout_(request.layout), blobs_(fs::path(request.blobs) / "sha256"), before_(names(blobs_)) {}

  PullProgress look(size_t begun) const {
    PullProgress seen{begun, 0, 0};
    for (const std::string& name : names(layout_))
      if (name.starts_with(kComing)) seen.bytes += size_of(layout_ / name);
    for (const std::string& name : names(blobs_)) {
      if (before_.contains(name)) continue;
      ++seen.done;
      seen.bytes += size_of(blobs_ / name);
    }
    return seen;
  }

 private:
  static std::set<std::string> names(const fs::path& folder) {
    std::set<std::string> found;
    std::error_code error;
    for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
      found.insert(at->path().filename().string());
    return found;
  }
  static uint64_t size_of(const fs::path& path) {
    struct stat status {};
    return ::stat(path.c_str(), &status) == 0 ? static_cast<uint64_t>(status.st_size) : 0;
  }
  const fs::path layout_, blobs_;
  const std::set<std::string> before_;
};

// What is there to be read, behind `text`, of which the end is kept. False: no more will come.
bool read_some(int from, std::string& text) {
  std::array<char, 4096> buffer;
  const ssize_t count = ::read(from, buffer.data(), buffer.size());
  if (count < 0) return errno == EINTR;
  text.append(buffer.data(), static_cast<size_t>(count));
  if (text.size() > kLogMax) text.erase(0, text.size() - kLogMax);
  return count > 0;
}

size_t count_layers(std::string_view output) {
  constexpr std::string_view kLine = "Copying blob ";
  size_t count = 0;
  for (size_t at = 0; (at = output.find(kLine, at)) != std::string_view::npos; at += kLine.size()) ++count;
  return count;
}

struct Said {
  std::string output, log;
};

// Until skopeo has closed its outputs; `look` is called several times a second.
Result<Said> attend(int output, int log, HeldSignals& signals,
                    const std::function<Result<void>(const Said&)>& look) {
  Said said;
  std::array<pollfd, 3> waits{{{output, POLLIN, 0}, {log, POLLIN, 0}, {signals.fd(), POLLIN, 0}}};
  while (waits[0].fd >= 0 || waits[1].fd >= 0) {
    const int ready = ::poll(waits.data(), waits.size(), kLookEveryMs);
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "poll");
    if (signals.came()) return fail("interrupted");
    if (ready > 0 && waits[0].revents != 0 && !read_some(output, said.output)) waits[0].fd = -1;
    if (ready > 0 && waits[1].revents != 0 && !read_some(log, said.log)) waits[1].fd = -1;
    SNUG_TRY(look(said));
  }
  return said;
}

// What it has said on its stdout, or why it has failed.
Result<std::string> run_skopeo(const std::vector<std::string>& words, HeldSignals& signals,
                               const std::function<Result<void>(const Said&)>& look) {
  const std::string program = find_program("skopeo");
  if (program.empty())
    return fail_with_hint("skopeo, which brings images, is not on PATH",
                          "install it: sudo apt install skopeo");
  auto output = SNUG_TRY(make_pipe());
  auto log = SNUG_TRY(make_pipe());
  std::vector<std::string> arguments{"skopeo", "--override-os", "linux", "--override-arch", "amd64"};
  arguments.insert(arguments.end(), words.begin(), words.end());
  Child child(SNUG_TRY(start(program, arguments, output.to.get(), log.to.get(), signals.mask_before())));
  output.to.reset();
  log.to.reset();
  Said said = SNUG_TRY(attend(output.from.get(), log.from.get(), signals, look));
  const int status = child.wait();
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return std::move(said.output);
  if (WIFSIGNALED(status)) return fail("skopeo was killed by signal {}", WTERMSIG(status));
  const std::string message = last_message(said.log);
  return fail("{}",
              message.empty() ? fmt::format("skopeo ended with status {}", WEXITSTATUS(status)) : message);
}

// How long nothing has been heard of.
class Silence {
 public:
  explicit Silence(std::chrono::milliseconds patience) : patience_(patience) {}
  // `known`: changes with whatever comes. Errors: nothing has come for too long.
  Result<void> check(uint64_t known) {
    if (std::exchange(known_, known) != known) last_news_ = Clock::now();
    if (Clock::now() - last_news_ <= patience_) return {};
    return fail_with_hint(fmt::format("nothing has come for {} seconds",
                                      std::chrono::duration_cast<std::chrono::seconds>(patience_).count()),
                          "is where it comes from reachable? what is here already is kept for the next try");
  }

 private:
  const std::chrono::milliseconds patience_;
  Clock::time_point last_news_ = Clock::now();
  uint64_t known_ = 0;
};

// skopeo does not look at docker's own word for where its daemon is.
void name_daemon(std::vector<std::string>& words, const char* flag, const std::string& source) {
  const char* host = std::getenv("DOCKER_HOST");  // NOLINT(concurrency-mt-unsafe): before other threads exist
  if (!source.starts_with("docker-daemon:") || host == nullptr || *host == '\0') return;
  words.insert(words.begin() + 1, {flag, host});
}

}  // namespace

Result<void> copy_image(const CopyRequest& request, HeldSignals& signals, const PullCallback& progress) {
  const Arrivals arrivals(request);
  Silence silence(request.patience);
  const auto look = [&](const Said& said) -> Result<void> {
    const PullProgress seen = arrivals.look(count_layers(said.output));
    if (progress) progress(seen);
    return silence.check(seen.bytes + seen.done + said.output.size() + said.log.size());
  };
  std::vector<std::string> words{"copy", "--dest-shared-blob-dir", request.blobs, request.source,
                                 "oci:" + request.layout + ":image"};
  name_daemon(words, "--src-daemon-host", request.source);
  SNUG_TRY(run_skopeo(words, signals, look));
  return {};
}

Result<std::string> original_config(const std::string& source, HeldSignals& signals) {
  Silence silence(std::chrono::minutes(1));
  std::vector<std::string> words{"inspect", "--config", "--raw", source};
  name_daemon(words, "--daemon-host", source);
  return run_skopeo(words, signals,
                    [&](const Said& said) { return silence.check(said.output.size() + said.log.size()); });
}

std::string last_message(const std::string& log) {
  constexpr std::string_view kKey = "msg=\"";
  std::string_view line(log);
  while (!line.empty() && line.back() == '\n') line.remove_suffix(1);
  line.remove_prefix(line.rfind('\n') + 1);
  const size_t key = line.find(kKey);
  if (key == std::string_view::npos) return std::string(line);
  std::string message;
  for (size_t i = key + kKey.size(); i < line.size() && line[i] != '"'; ++i) {
    if (line[i] == '\\' && i + 1 < line.size()) ++i;
    message += line[i];
  }
  return message;
}

}  // namespace snug::oci
