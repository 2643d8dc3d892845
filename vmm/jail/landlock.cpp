#include "vmm/jail/landlock.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace snug::jail {
namespace {

// Of the kernel's <linux/landlock.h>; Debian 12's ends with version 2.
constexpr long kCreateRuleset = 444, kRestrictSelf = 446;
constexpr uint32_t kAskVersion = 1;
constexpr uint64_t kTcpPorts = 3;           // bind, connect
constexpr uint64_t kSocketsAndSignals = 3;  // abstract unix sockets, signals
struct Ruleset {
  uint64_t files, ports, scope;
};

// The rights on files: one bit each, the lowest first.
int rights_on_files(int version) {
  if (version >= 5) return 16;  // ioctl of devices
  if (version >= 3) return 15;  // truncate
  if (version == 2) return 14;  // link and rename into another folder
  return 13;
}

}  // namespace

int landlock_version() { return static_cast<int>(::syscall(kCreateRuleset, nullptr, 0, kAskVersion)); }

int forbid_names(int version) {
  // Everything is to be asked for, and there are no rules that would allow any of it. A kernel that does not
  // know a field takes it as long as it is 0.
  const Ruleset ruleset{(uint64_t{1} << rights_on_files(version)) - 1, version >= 4 ? kTcpPorts : 0,
                        version >= 6 ? kSocketsAndSignals : 0};
  const int fd = static_cast<int>(::syscall(kCreateRuleset, &ruleset, sizeof ruleset, 0));
  if (fd < 0) return errno;
  const int error = ::syscall(kRestrictSelf, fd, 0) == 0 ? 0 : errno;
  ::close(fd);
  return error;
}

}  // namespace snug::jail
