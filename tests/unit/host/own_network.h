// A network namespace and a mount namespace for a test program: nothing of the host's is touched. Entered
// once, by the only thread.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>

#include <cstdlib>
#include <string>

#include "vmm/base/unique_fd.h"

namespace snug::test {

// "" or why there can be none here, or no tap interface in it.
inline const std::string& enter_own_network() {
  static const std::string why = []() -> std::string {
    const auto put = [](const char* path, const std::string& text) {
      const UniqueFd file(::open(path, O_WRONLY | O_CLOEXEC));
      return ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
    };
    const uid_t user = ::geteuid();
    const gid_t group = ::getegid();
    if (::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0) {
      if (::unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS) != 0)
        return "no network namespace: " + errno_text(errno);
      if (!put("/proc/self/setgroups", "deny") || !put("/proc/self/uid_map", fmt::format("0 {} 1", user)) ||
          !put("/proc/self/gid_map", fmt::format("0 {} 1", group)))
        return "no user namespace: " + errno_text(errno);
    }
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
      return "no mounts of our own: " + errno_text(errno);
    const UniqueFd tun(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
    return tun ? "" : "/dev/net/tun: " + errno_text(errno);
  }();
  return why;
}

// A new queue of interface `name`, which lasts as long as the descriptor unless it is made persistent.
inline UniqueFd open_tun(const std::string& name, int flags) {
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  ifreq request{};
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_flags = static_cast<short>(flags);
  EXPECT_EQ(::ioctl(fd.get(), TUNSETIFF, &request), 0) << errno_text(errno);
  return fd;
}

inline bool run_ip(const std::string& words) {
  return std::system(("PATH=$PATH:/usr/sbin:/sbin ip " + words).c_str()) ==
         0;  // NOLINT(concurrency-mt-unsafe)
}

}  // namespace snug::test
