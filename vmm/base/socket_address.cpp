#include "vmm/base/socket_address.h"

#include <sys/socket.h>

namespace snug {
namespace {

// The rest of an address stays zero.
constexpr size_t kRoom = sizeof(sockaddr_un::sun_path) - 1;

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(static_cast<char*>(address.sun_path), kRoom);
  return address;
}

}  // namespace

Result<sockaddr_un> socket_address(const std::string& path) {
  if (path.size() > kRoom)
    return fail_with_hint(fmt::format("{}: {} bytes are too long for a socket's path", path, path.size()),
                          fmt::format("use one of at most {} bytes", kRoom));
  return address_of(path);
}

Result<sockaddr_un> socket_address(int folder, const std::string& file) {
  const std::string path = fmt::format("/proc/self/fd/{}/{}", folder, file);
  if (path.size() > kRoom) return fail_with_hint("its name is too long for a socket", "use a shorter one");
  return address_of(path);
}

}  // namespace snug
