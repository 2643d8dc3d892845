#include "vmm/cli/service_manager.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "vmm/base/unique_fd.h"

namespace snug::cli {
namespace {

// What we need ourselves, behind the guest's grace period.
constexpr std::chrono::seconds kOurShare{5};
// For a guest that may take as long as it wants: nobody waits longer for a machine.
constexpr std::chrono::hours kForEver{24};

}  // namespace

ServiceManager ServiceManager::take_from_environment() {
  ServiceManager manager;
  const char* socket =
      std::getenv("NOTIFY_SOCKET");  // NOLINT(concurrency-mt-unsafe): before other threads exist
  if (socket != nullptr && (*socket == '/' || *socket == '@')) manager.socket_ = socket;
  ::unsetenv("NOTIFY_SOCKET");  // NOLINT(concurrency-mt-unsafe)
  return manager;
}

void ServiceManager::ready(const std::string& machine) const {
  tell(fmt::format("READY=1\nSTATUS=The guest of {} runs\n", machine));
}

void ServiceManager::stopping(const TimeLimit& grace) const {
  using std::chrono::microseconds;
  const microseconds patience = (grace ? microseconds(*grace) : microseconds(kForEver)) + kOurShare;
  tell(fmt::format("STOPPING=1\nSTATUS=The guest was asked to power off\nEXTEND_TIMEOUT_USEC={}\n",
                   patience.count()));
}

void ServiceManager::tell(const std::string& message) const {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_.empty() || socket_.size() >= sizeof address.sun_path) return;
  std::memcpy(address.sun_path, socket_.data(), socket_.size());
  if (socket_.front() == '@') address.sun_path[0] = '\0';
  const UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return;
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  (void)!::sendto(fd.get(), message.data(), message.size(), MSG_NOSIGNAL,
                  reinterpret_cast<const sockaddr*>(&address), length);
}

}  // namespace snug::cli
