#include "guest-images/agent/go_on.h"

#include <fcntl.h>
#include <linux/random.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <vector>

#include "guest-images/agent/connection.h"

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
  if (!request.host_name.empty() && ::sethostname(request.host_name.data(), request.host_name.size()) != 0)
    return why("set the host's name");
  return {};
}

}  // namespace snug::agent
