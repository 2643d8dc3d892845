#include "vmm/jail/hints.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <string_view>

#include "vmm/base/unique_fd.h"

namespace snug::jail {
namespace {

// Whether a number of the kernel's is there and is this one.
bool is_set_to(const char* name, char value) {
  const UniqueFd file(::open(fmt::format("/proc/sys/{}", name).c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 2> text{};
  return file && ::read(file.get(), text.data(), text.size()) == 2 && text[0] == value && text[1] == '\n';
}

bool restricted_by_apparmor() { return is_set_to("kernel/apparmor_restrict_unprivileged_userns", '1'); }

std::string own_program() {
  std::array<char, PATH_MAX> path{};
  const ssize_t count = ::readlink("/proc/self/exe", path.data(), path.size());
  return count > 0 ? std::string(path.data(), static_cast<size_t>(count)) : "/usr/bin/snug";
}

// Ubuntu 23.10 and later: programs may make user namespaces if a profile says so.
std::string apparmor_profile() {
  return fmt::format(
      "let AppArmor allow it: printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile snug {} "
      "flags=(unconfined) {{ userns, }}\\n' | sudo tee /etc/apparmor.d/snug; "
      "sudo apparmor_parser -r /etc/apparmor.d/snug",
      own_program());
}

}  // namespace

std::string hint_for_namespaces(int error) {
  if (error == EINVAL) return "a kernel built with CONFIG_USER_NS and the other namespaces is needed";
  if (is_set_to("kernel/unprivileged_userns_clone", '0'))
    return "sudo sysctl kernel.unprivileged_userns_clone=1";
  for (const char* kind : {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"})
    if (is_set_to(fmt::format("user/max_{}_namespaces", kind).c_str(), '0'))
      return fmt::format("sudo sysctl user.max_{}_namespaces=10000", kind);
  // User namespaces within each other, or too many: where only a limit further out is reached.
  if (error == ENOSPC || error == EUSERS) return "a limit of user.max_*_namespaces is reached: sysctl user";
  if (restricted_by_apparmor()) return apparmor_profile();
  if (::prctl(PR_GET_SECCOMP) == 2)
    return "a container's seccomp profile forbids it: docker run --security-opt seccomp=unconfined, or a "
           "profile that allows clone and unshare with CLONE_NEWUSER";
  return "not in a chroot, nor for a user whom a container does not map; else a security module forbids it";
}

std::string hint_inside_namespaces(int error) {
  if (error != EPERM && error != EACCES) return {};
  if (restricted_by_apparmor()) return apparmor_profile();
  return "a security module or a container's seccomp profile forbids it";
}

std::string hint_for_landlock(int error) {
  if (error == EOPNOTSUPP) return "boot the host with landlock among the names of lsm=";
  // Some profiles of containers answer like a kernel that does not know it.
  if (::prctl(PR_GET_SECCOMP) == 2) return "a container's seccomp profile forbids it, or the kernel has none";
  return "a kernel of 5.13 or later, built with CONFIG_SECURITY_LANDLOCK";
}

}  // namespace snug::jail
