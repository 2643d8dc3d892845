#include "guest-images/agent/go_on.h"

#include <fcntl.h>
#include <linux/random.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <vector>

#include "guest-images/agent/connection.h"
#include "guest-images/agent/interface.h"
#include "guest-images/agent/renewal.h"
#include "guest-images/agent/small_files.h"

namespace snug::agent {
namespace {

// Linux before 4.14 has no RNDRESEEDCRNG, and takes what was added with its next minute.
#ifndef RNDRESEEDCRNG
#define RNDRESEEDCRNG _IO('R', 0x07)
#endif

bool stir(const std::string& seed) {
  const Fd random(::open("/dev/urandom", O_RDWR | O_CLOEXEC));
  if (!random) return false;
  std::vector<int> storage((sizeof(rand_pool_info) + seed.size()) / sizeof(int) + 1);
  auto* pool = reinterpret_cast<rand_pool_info*>(storage.data());
  pool->entropy_count = static_cast<int>(8 * seed.size());
  pool->buf_size = static_cast<int>(seed.size());
  std::memcpy(pool->buf, seed.data(), seed.size());
  if (::ioctl(random.get(), RNDADDENTROPY, pool) != 0) return false;
  return ::ioctl(random.get(), RNDRESEEDCRNG) == 0 || errno == EINVAL || errno == ENOTTY;
}

std::string why(const char* what) { return std::string(what) + ": " + std::strerror(errno); }

// The line that whoever made the guest ready has written for the name that it had (new_root.cpp); another's
// stays.
void rename_in_hosts(const std::string& from, const std::string& to) {
  const std::string line = "127.0.1.1 " + from + "\n";
  std::string text = read_file("/etc/hosts");
  const size_t at = ("\n" + text).find("\n" + line);
  if (at == std::string::npos) return;
  write_file("/etc/hosts", text.replace(at, line.size(), "127.0.1.1 " + to + "\n"), Write::kReplace);
}

std::string set_host_name(const std::string& name) {
  utsname system{};
  ::uname(&system);
  if (name.empty() || name == system.nodename) return {};
  if (::sethostname(name.data(), name.size()) != 0) return why("set the host's name");
  rename_in_hosts(system.nodename, name);
  return {};
}

}  // namespace

bool set_clock(uint64_t nanoseconds) {
  timespec time{};
  time.tv_sec = static_cast<time_t>(nanoseconds / 1'000'000'000);
  time.tv_nsec = static_cast<long>(nanoseconds % 1'000'000'000);
  return ::clock_settime(CLOCK_REALTIME, &time) == 0;
}

std::string go_on(const protocol::GoOn& request) {
  if (!stir(request.seed)) return why("stir the random numbers");
  if (!set_clock(request.nanoseconds)) return why("set the guest's clock");
  return set_host_name(request.host_name);
}

std::string readdress(const std::vector<protocol::AddressChange>& changes) {
  std::string failures;
  for (const std::string& name : interface_names()) {
    const HardwareAddress now = hardware_address(name);
    for (const protocol::AddressChange& change : changes) {
      if (change.from != now) continue;
      if (set_hardware_address(name, change.to)) {
        renew_when_plugged_in(name);
      } else {
        failures += (failures.empty() ? "" : "; ") + name + " keeps its address: " + std::strerror(errno);
      }
    }
  }
  return failures;
}

}  // namespace snug::agent
