#include "vmm/host/signals.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

namespace snug {
namespace {

// Ignored from the start: nohup, or a job in a script's background. It stays so.
sigset_t heard(const std::vector<int>& signals) {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : signals) {
    struct sigaction before {};
    if (::sigaction(number, nullptr, &before) == 0 && before.sa_handler == SIG_IGN) continue;
    ::sigaddset(&set, number);
  }
  return set;
}

}  // namespace

bool EndingWish::is_the_same() {
  const auto now = std::chrono::steady_clock::now();
  if (last_ && now - *last_ < kSame) return true;
  last_ = now;
  return false;
}

std::vector<int> SignalWatch::of_a_run(bool commands) {
  std::vector<int> signals{SIGTERM, SIGINT, SIGHUP, SIGTSTP, SIGCONT};
  if (commands) signals.insert(signals.end(), {SIGUSR1, SIGUSR2, SIGQUIT, SIGWINCH});
  return signals;
}

void SignalWatch::block(const std::vector<int>& signals) {
  const sigset_t set = heard(signals);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

Result<SignalWatch> SignalWatch::create(EventLoop& loop, const std::vector<int>& signals,
                                        std::function<void(int)> callback) {
  const sigset_t set = heard(signals);
  block(signals);
  SignalWatch watch;
  watch.fd_ = UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!watch.fd_) return fail_errno(errno, "signalfd");
  watch.watch_ = SNUG_TRY(loop.watch(watch.fd_.get(), EPOLLIN, [fd = watch.fd_.get(), callback](uint32_t) {
    signalfd_siginfo info{};
    while (::read(fd, &info, sizeof info) == sizeof info) callback(static_cast<int>(info.ssi_signo));
  }));
  return watch;
}

}  // namespace snug
