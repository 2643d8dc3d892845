#include "vmm/jail/capabilities.h"

#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace snug::jail {
namespace {

using Sets = std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3>;

constexpr unsigned long kSecureBits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                      SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                                      SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

}  // namespace

bool has_capability(int capability) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  Sets sets{};
  if (::syscall(SYS_capget, &header, sets.data()) != 0) return false;
  return (sets[CAP_TO_INDEX(capability)].effective & CAP_TO_MASK(capability)) != 0;
}

int lock_capabilities() {
  // Up to the last one this kernel has, which may know more than its headers here.
  for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability) >= 0; ++capability)
    if (::prctl(PR_CAPBSET_DROP, capability) != 0) return errno;
  return ::prctl(PR_SET_SECUREBITS, kSecureBits) == 0 ? 0 : errno;
}

int drop_capabilities() { return keep_capabilities({}); }

int keep_capabilities(std::initializer_list<int> kept) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  Sets sets{};
  if (::syscall(SYS_capget, &header, sets.data()) != 0) return errno;
  Sets wanted{};
  for (const int capability : kept)
    wanted[CAP_TO_INDEX(capability)].permitted |=
        sets[CAP_TO_INDEX(capability)].permitted & CAP_TO_MASK(capability);
  for (auto& set : wanted) set.effective = set.permitted;
  // The ambient set follows what is not permitted any more.
  return ::syscall(SYS_capset, &header, wanted.data()) == 0 ? 0 : errno;
}

}  // namespace snug::jail
