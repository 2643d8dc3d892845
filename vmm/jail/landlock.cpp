#include "vmm/jail/landlock.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace snug::jail {
namespace {

// Of the kernel's <linux/landlock.h>; Debian 12's ends with version 2.
constexpr long kCreateRuleset = 444, kAddRule = 445, kRestrictSelf = 446;
constexpr uint32_t kAskVersion = 1;
constexpr uint64_t kTcpPorts = 3;           // bind, connect
constexpr uint64_t kSocketsAndSignals = 3;  // abstract unix sockets, signals
struct Ruleset {
  uint64_t files, ports, scope;
};
constexpr uint32_t kPathBeneath = 1;
struct [[gnu::packed]] Beneath {
  uint64_t rights;
  int32_t folder;
};

// Bits of rights on files.
constexpr uint64_t kExecute = 1 << 0, kWriteFile = 1 << 1, kReadFile = 1 << 2, kReadFolder = 1 << 3;
constexpr uint64_t kMakeCharacterDevice = 1 << 6, kMakeBlockDevice = 1 << 11, kTruncate = 1 << 14;
constexpr uint64_t kReading = kReadFile | kReadFolder;
constexpr uint64_t kOfFiles = kWriteFile | kReadFile | kTruncate;
constexpr uint64_t kNever = kExecute | kMakeCharacterDevice | kMakeBlockDevice;

// The rights on files: one bit each, the lowest first.
int rights_on_files(int version) {
  if (version >= 5) return 16;  // ioctl of devices
  if (version >= 3) return 15;  // truncate
  if (version == 2) return 14;  // link and rename into another folder
  return 13;
}

}  // namespace

int landlock_version() { return static_cast<int>(::syscall(kCreateRuleset, nullptr, 0, kAskVersion)); }

int forbid_names(int version) { return forbid_names_but(version, {}); }

int forbid_names_but(int version, std::span<const ReachableFolder> folders) {
  // Everything is to be asked for, and rules allow what they name. A kernel that does not know a field takes
  // it as long as it is 0.
  const uint64_t all = (uint64_t{1} << rights_on_files(version)) - 1;
  const Ruleset ruleset{all, version >= 4 ? kTcpPorts : 0, version >= 6 ? kSocketsAndSignals : 0};
  const int fd = static_cast<int>(::syscall(kCreateRuleset, &ruleset, sizeof ruleset, 0));
  if (fd < 0) return errno;
  int error = 0;
  for (const ReachableFolder& folder : folders) {
    const uint64_t rights = all & (folder.readonly ? kReading : ~kNever) & (folder.is_file ? kOfFiles : all);
    const Beneath rule{rights, folder.folder};
    if (error == 0 && ::syscall(kAddRule, fd, kPathBeneath, &rule, 0) != 0) error = errno;
  }
  if (error == 0 && ::syscall(kRestrictSelf, fd, 0) != 0) error = errno;
  ::close(fd);
  return error;
}

}  // namespace snug::jail
