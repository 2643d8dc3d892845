#include "vmm/run/share_server.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <functional>
#include <set>

#include "vmm/base/log.h"
#include "vmm/core/event_loop.h"
#include "vmm/core/lost_pages.h"
#include "vmm/jail/confine.h"
#include "vmm/jail/process.h"
#include "vmm/jail/record.h"
#include "vmm/run/run_report.h"
#include "vmm/run/warden_protocol.h"
#include "vmm/shares/share_service.h"

namespace snug {
namespace {

// Threads of all shares, and what a library may start.
constexpr rlim_t kThreads = 128;
// Of descriptors: what is no file of a share.
constexpr rlim_t kReserved = 128;

// Of one share: what a guest that walks through a million files makes a host hold.
constexpr size_t kDescriptorsMax = 16384;

// What the server says of its set-up: 'E' and an error, or 'O' and a line for each missing part of its jail.
constexpr char kGood = 'O';
constexpr char kBad = 'E';

void say(int words, char kind, const std::string& text) {
  const std::string all = kind + text;
  (void)!::write(words, all.data(), all.size());
}

std::string hear(int words) {
  std::string text;
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t count = ::read(words, buffer.data(), buffer.size());
    if (count > 0)
      text.append(buffer.data(), static_cast<size_t>(count));
    else if (count == 0 || errno != EINTR)
      return text;
  }
}

// Everything else that the parent has open belongs to the machine. The numbers of the standard streams are
// not to become a file's.
Result<void> close_all_but(std::set<int> kept) {
  const auto nothing = SNUG_TRY(open_file("/dev/null", O_RDWR));
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO})
    if (::dup2(nothing.get(), fd) < 0) return fail_errno(errno, "dup2");
  if (::fcntl(STDERR_FILENO, F_GETFD) < 0 && ::dup2(nothing.get(), STDERR_FILENO) < 0)
    return fail_errno(errno, "dup2");
  kept.insert({STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO});
  if (log_descriptor() >= 0) kept.insert(log_descriptor());
  unsigned next = 0;
  for (const int fd : kept) {
    const auto number = static_cast<unsigned>(fd);
    if (number > next && ::close_range(next, number - 1, 0) != 0) return fail_errno(errno, "close_range");
    next = number + 1;
  }
  if (::close_range(next, ~0U, 0) != 0) return fail_errno(errno, "close_range");
  return {};
}

ShareOptions options_of(const ShareSpec& share, bool real_ids, size_t descriptors) {
  ShareOptions options;
  options.readonly = share.readonly;
  options.cache = share.cache == ShareCacheMode::kAlways ? ShareCache::kAlways
                  : share.cache == ShareCacheMode::kNone ? ShareCache::kNone
                                                         : ShareCache::kAuto;
  options.submounts = share.submounts;
  options.uid = share.uid;
  options.gid = share.gid;
  options.real_ids = real_ids;
  options.descriptors = std::min(descriptors, kDescriptorsMax);
  // The root's files are the host's: its users are not the guest's, but for the one who serves.
  if (share.tag == ShareEnd::kRootTag && !real_ids) {
    options.uid = ::geteuid();
    options.gid = ::getegid();
    options.foreign_uid = options.foreign_gid = 0;
  }
  options.file_name = std::filesystem::path(share.source).filename();
  return options;
}

// The server's own side.
class Process {
 public:
  Process(const Spec& spec, std::vector<ShareEnd>& shares, const jail::Split& split, int record)
      : spec_(spec), shares_(shares), split_(split), record_(record) {}

  // Where it has to stop.
  Result<void> begin() {
    ::umask(0);
    // A guest's file that gets too long is an error of its own.
    ::signal(SIGXFSZ, SIG_IGN);
    SNUG_TRY(watch_lost_pages(STDERR_FILENO));
    loop_ = SNUG_TRY(EventLoop::create());
    auto own_files = SNUG_TRY(open_file("/proc/self/fd", O_PATH | O_DIRECTORY));
    rlimit descriptors{};
    ::getrlimit(RLIMIT_NOFILE, &descriptors);
    descriptors.rlim_cur = descriptors.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &descriptors);
    auto roots = SNUG_TRY(lock_in({descriptors.rlim_max, kThreads}));
    if (own_files_) own_files = std::move(own_files_);
    // Names of open files without a folder are theirs (HostFiles).
    if (::fchdir(own_files.get()) != 0) return fail_errno(errno, "shares: the folder of open files");
    const rlim_t shared = descriptors.rlim_max > 2 * kReserved ? descriptors.rlim_max - kReserved : kReserved;
    for (size_t i = 0; i < shares_.size(); ++i) {
      ShareService::Share share;
      share.socket = std::move(shares_[i].server);
      share.root = std::move(roots[i]);
      share.proc_self_fd = SNUG_TRY(duplicate(own_files.get()));
      // Root in a user namespace that knows no other user has no say over theirs.
      const bool real_ids = ::geteuid() == 0 && split_.namespaces != jail::Namespaces::kAll;
      share.options = options_of(shares_[i].spec, real_ids, shared / shares_.size());
      share.options.closed_folder = empty_.get();
      share.thread_begins = thread_begins_;
      share.failed = [this](const std::string& why) { end(why); };
      services_.push_back(SNUG_TRY(
          with_context(ShareService::create(*loop_, std::move(share)), "share " + shares_[i].spec.source)));
    }
    parent_ = SNUG_TRY(loop_->watch(split_.lifeline.get(), EPOLLHUP, [](uint32_t) { ::_exit(0); }));
    return {};
  }

  const std::vector<std::string>& missing() const { return missing_; }

  [[noreturn]] void serve() {
    if (thread_begins_) thread_begins_();
    (void)loop_->run();
    ::_exit(kStatusFailure);
  }

 private:
  Result<std::vector<UniqueFd>> lock_in(const jail::Limits& limits) {
    std::vector<UniqueFd> roots;
    if (spec_.jail == JailMode::kOff) {
      (void)jail::end_with_parent(split_);
      for (ShareEnd& share : shares_) roots.push_back(std::move(share.folder.opened));
      return roots;
    }
    std::vector<jail::SharedFolder> folders;
    for (ShareEnd& share : shares_) folders.push_back(std::move(share.folder));
    auto entry = SNUG_TRY(jail::take_share_steps(split_, limits, folders));
    for (const jail::MissingStep& step : entry.steps.missing)
      missing_.push_back(fmt::format("shares: {}: {}", step.name, step.why));
    if (!missing_.empty() && spec_.jail == JailMode::kRequire)
      return fail_with_hint(
          fmt::format("jail: this host refuses a part of it: {}", fmt::join(missing_, "; ")),
          "choose jail: auto to run without that part");
    if (jail::kConfines) {
      SNUG_TRY(jail::watch_violations(STDERR_FILENO));
      if (record_ >= 0) SNUG_TRY(jail::record_calls(record_));
      thread_begins_ = [] {
        if (auto confined = jail::confine_thread(ThreadKind::kShare); !confined) {
          log_error("jail: {}", confined.error().text());
          ::_exit(kStatusFailure);
        }
      };
    }
    empty_ = std::move(entry.empty);
    own_files_ = std::move(entry.own_files);
    return std::move(entry.roots);
  }

  // Its machine is gone, or is not to be believed any more.
  void end(const std::string& why) {
    if (!why.empty()) log_error("shares: {}", why);
    ::_exit(why.empty() ? 0 : kStatusFailure);
  }

  const Spec& spec_;
  std::vector<ShareEnd>& shares_;
  const jail::Split& split_;
  const int record_;
  std::vector<std::string> missing_;
  UniqueFd empty_;  // a folder
  UniqueFd own_files_;
  std::function<void()> thread_begins_;
  std::unique_ptr<EventLoop> loop_;
  std::vector<std::unique_ptr<ShareService>> services_;
  EventLoop::Watch parent_;
};

[[noreturn]] void be_the_server(const Spec& spec, std::vector<ShareEnd>& shares, const jail::Split& split,
                                UniqueFd words, const std::function<void()>& leave_terminal, int record) {
  if (leave_terminal) leave_terminal();
  std::set<int> kept{split.lifeline.get(), words.get()};
  if (record >= 0) kept.insert(record);
  for (ShareEnd& share : shares) {
    share.device.release();  // closed below with everything else
    kept.insert(share.server.get());
    kept.insert(share.folder.opened.get());
  }
  Process process(spec, shares, split, record);
  auto begun = close_all_but(std::move(kept));
  if (begun) begun = process.begin();
  if (!begun) {
    say(words.get(), kBad, warden::error_text(begun.error()));
    ::_exit(kStatusFailure);
  }
  say(words.get(), kGood, fmt::format("{}", fmt::join(process.missing(), "\n")));
  words.reset();
  process.serve();
}

}  // namespace

Result<std::vector<ShareEnd>> ShareEnd::open(const Spec& spec) {
  std::vector<ShareEnd> ends;
  std::vector<ShareSpec> shares = spec.shares;
  if (!spec.root.empty()) {
    ShareSpec root;
    root.source = spec.root;
    root.tag = kRootTag;
    root.readonly = true;
    shares.push_back(std::move(root));
  }
  for (const ShareSpec& share : shares) {
    ShareEnd end;
    end.spec = share;
    end.folder.path = share.source;
    end.folder.readonly = share.readonly;
    end.folder.submounts = share.submounts;
    end.folder.opened = SNUG_TRY(with_context(open_file(share.source, O_PATH), "share"));
    struct stat status {};
    if (::fstat(end.folder.opened.get(), &status) != 0) return fail_errno(errno, "share {}", share.source);
    if (!S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode))
      return fail("share {}: neither a folder nor a regular file", share.source);
    std::array<int, 2> sockets{};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets.data()) != 0)
      return fail_errno(errno, "share {}: socketpair", share.source);
    end.device = UniqueFd(sockets[0]);
    end.server = UniqueFd(sockets[1]);
    ends.push_back(std::move(end));
  }
  return ends;
}

Result<std::unique_ptr<ShareServer>> ShareServer::start(const Spec& spec, std::vector<ShareEnd>& shares,
                                                        const std::function<void()>& leave_terminal,
                                                        int record) {
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  const UniqueFd from(pipe[0]);
  UniqueFd to(pipe[1]);
  auto split = SNUG_TRY(jail::split(spec.jail == JailMode::kOff ? jail::Confinement::kNone
                                                                : jail::Confinement::kNamespacesAsSelf));
  if (split.child == 0) be_the_server(spec, shares, split, std::move(to), leave_terminal, record);
  to.reset();
  std::unique_ptr<ShareServer> server(new ShareServer);
  server->pid_ = split.child;
  server->process_ = std::move(split.process);
  server->lifeline_ = std::move(split.lifeline);
  for (ShareEnd& share : shares) {
    share.server.reset();
    share.folder.opened.reset();
  }
  std::string words = hear(from.get());
  if (words.empty()) {
    const std::string why = server->end();
    return fail("shares: {}", why.empty() ? "the process that serves them has ended" : why);
  }
  const bool good = words.front() == kGood;
  words.erase(0, 1);
  if (!good) return tl::unexpected(warden::error_of(words));
  for (size_t at = 0; at < words.size();) {
    const size_t end = std::min(words.find('\n', at), words.size());
    server->jail_missing_.push_back(words.substr(at, end - at));
    at = end + 1;
  }
  return server;
}

ShareServer::~ShareServer() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) continue;
}

std::string ShareServer::end() {
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) continue;
  pid_ = -1;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  if (!WIFSIGNALED(status))
    return fmt::format("the process that serves shares ended with status {}", WEXITSTATUS(status));
  const char* name = ::sigabbrev_np(WTERMSIG(status));
  return fmt::format("the process that serves shares was killed by SIG{}", name != nullptr ? name : "?");
}

}  // namespace snug
