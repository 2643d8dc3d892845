#include "vmm/oci/held_signals.h"

#include <sys/signalfd.h>
#include <unistd.h>

namespace snug::oci {

HeldSignals::HeldSignals() {
  sigset_t held;
  ::sigemptyset(&held);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action {};
    ::sigaction(number, nullptr, &action);
    if (action.sa_handler != SIG_IGN) ::sigaddset(&held, number);
  }
  ::sigprocmask(SIG_BLOCK, &held, &before_);
  fd_ = UniqueFd(::signalfd(-1, &held, SFD_CLOEXEC | SFD_NONBLOCK));
}

HeldSignals::~HeldSignals() {
  (void)came();
  ::sigprocmask(SIG_SETMASK, &before_, nullptr);
  if (number_ != 0) ::raise(number_);
}

bool HeldSignals::came() {
  signalfd_siginfo info{};
  while (::read(fd_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info))
    if (number_ == 0) number_ = static_cast<int>(info.ssi_signo);
  return number_ != 0;
}

}  // namespace snug::oci
