#include "vmm/host/pty.h"

#include <fcntl.h>
#include <stdlib.h>
#include <termios.h>

#include <array>

namespace snug {

Result<Pty> open_pty() {
  Pty pty;
  pty.master = UniqueFd(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
  std::array<char, 128> name{};
  if (!pty.master || ::grantpt(pty.master.get()) != 0 || ::unlockpt(pty.master.get()) != 0 ||
      ::ptsname_r(pty.master.get(), name.data(), name.size()) != 0)
    return fail_errno(errno, "open a pty");
  pty.path = name.data();
  pty.slave = SNUG_TRY(open_file(pty.path, O_RDWR | O_NOCTTY));
  termios settings{};
  if (::tcgetattr(pty.slave.get(), &settings) == 0) {
    ::cfmakeraw(&settings);
    ::tcsetattr(pty.slave.get(), TCSANOW, &settings);
  }
  return pty;
}

}  // namespace snug
