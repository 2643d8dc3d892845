#include "vmm/host/tap.h"

#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "devices/virtio/net/vhost.h"
#include "vmm/base/log.h"
#include "vmm/spec/network.h"

namespace snug {
namespace {

constexpr int kHeaderSize = 12;  // virtio 1.2, 5.1.6

void set_name(ifreq& request, const std::string& name) {
  std::memcpy(request.ifr_name, name.data(), std::min<size_t>(name.size(), IFNAMSIZ - 1));
}

std::string how_to_make(const std::string& name, uint32_t queues) {
  return fmt::format("sudo ip tuntap add dev {0} mode tap{1} user $USER && sudo ip link set {0} up", name,
                     queues > 1 ? " multi_queue" : "");
}

Result<void> prepare(int fd) {
  int size = kHeaderSize;
  if (::ioctl(fd, TUNSETVNETHDRSZ, &size) != 0) return fail_errno(errno, "header size");
  if (::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK) != 0) return fail_errno(errno, "non-blocking");
  return {};
}

// Whether it is an interface of the tun driver, in tap mode. (/sys may show another network namespace.)
bool is_tap(const std::string& name) {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ethtool_drvinfo info{};
  info.cmd = ETHTOOL_GDRVINFO;
  ifreq request{};
  set_name(request, name);
  request.ifr_data = reinterpret_cast<char*>(&info);
  return socket && ::ioctl(socket.get(), SIOCETHTOOL, &request) == 0 &&
         std::string_view(info.driver) == "tun" && std::string_view(info.bus_info) == "tap";
}

Result<UniqueFd> open_driver() {
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (fd) return fd;
  const int error = errno;
  if (error == ENOENT || error == ENODEV)
    return fail_with_hint("/dev/net/tun is missing", "load the driver: sudo modprobe tun");
  if (error == EACCES)
    return fail_with_hint("/dev/net/tun: this user may not open it", "let it: sudo chmod 666 /dev/net/tun");
  return fail_errno(error, "/dev/net/tun");
}

// Why TUNSETIFF has failed for an interface that exists.
tl::unexpected<Error> explain(int error, const std::string& name, uint32_t queues) {
  if (error == EPERM)
    return fail_with_hint(name + ": belongs to another user",
                          "make one of your own: " + how_to_make(name, queues));
  if (error == EBUSY)
    return fail_with_hint(name + ": in use by another process", "end that one, or use another interface");
  if (error == EINVAL && !is_tap(name))
    return fail_with_hint(name + ": not a tap interface",
                          "choose another name, and make it: " + how_to_make("tap0", queues));
  if (error == EINVAL)
    return fail_with_hint(
        fmt::format("{}: not made for {}", name, queues > 1 ? "several queues" : "one queue"),
        fmt::format("make it anew: sudo ip tuntap del dev {} mode tap{}; {}", name,
                    queues > 1 ? "" : " multi_queue", how_to_make(name, queues)));
  return fail_errno(error, "{}", name);
}

}  // namespace

Result<Tap> Tap::open(const NetSpec& net) {
  Tap tap;
  const auto numbers = tap_descriptors(net.tap);
  if (numbers) {
    SNUG_TRY(tap.adopt(*numbers));
  } else {
    SNUG_TRY(tap.open_named(net.tap, net.queues));
  }
  if (net.mtu > tap.mtu_ && tap.mtu_ != 0)
    log_warn("the interface drops packets longer than {} bytes, and mtu is {}: sudo ip link set {} mtu {}",
             tap.mtu_, net.mtu, numbers ? "NAME" : net.tap, net.mtu);
  if (net.vhost == VhostUse::kOff) return tap;
  if (auto opened = tap.open_vhost(); !opened) {
    tap.vhost_.clear();
    if (net.vhost == VhostUse::kOn) return tl::unexpected(std::move(opened).error());
    log_info("vhost-net: {}; frames go through snug", opened.error().text());
  }
  return tap;
}

Result<void> Tap::open_named(const std::string& name, uint32_t queues) {
  // TUNSETIFF would make one, for those who may.
  if (::if_nametoindex(name.c_str()) == 0)
    return fail_with_hint("no interface " + name, "make it: " + how_to_make(name, queues));
  for (uint32_t i = 0; i < queues; ++i) {
    UniqueFd fd = SNUG_TRY(open_driver());
    ifreq request{};
    set_name(request, name);
    request.ifr_flags =
        static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (queues > 1 ? IFF_MULTI_QUEUE : 0));
    if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) return explain(errno, name, queues);
    SNUG_TRY(with_context(prepare(fd.get()), name));
    taps_.push_back(std::move(fd));
  }
  ask_interface(name);
  return {};
}

Result<void> Tap::adopt(const std::vector<int>& numbers) {
  std::string name;
  for (const int number : numbers) {
    ifreq request{};
    SNUG_TRY(with_context(adopt_one(number, request), fmt::format("fd:{}", number)));
    if (!name.empty() && name != request.ifr_name)
      return fail_with_hint(fmt::format("fd:{} is of another interface than the first: {}, not {}", number,
                                        request.ifr_name, name),
                            "hand down queues of one interface");
    name = request.ifr_name;
  }
  ask_interface(name);
  return {};
}

// Takes the descriptor for itself: the processes that snug starts have no business with it.
Result<void> Tap::adopt_one(int number, ifreq& request) {
  if (::ioctl(number, TUNGETIFF, &request) != 0)
    return fail_with_hint(
        errno == EBADF ? "not open" : "not a tap",
        "open /dev/net/tun, TUNSETIFF with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR, and hand it "
        "down");
  constexpr int kWanted = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if ((request.ifr_flags & kWanted) != kWanted)
    return fail_with_hint("frames do not have the form that is needed",
                          "open it with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR");
  UniqueFd fd(::fcntl(number, F_DUPFD_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "duplicate");
  ::fcntl(number, F_SETFD, FD_CLOEXEC);
  SNUG_TRY(prepare(fd.get()));
  taps_.push_back(std::move(fd));
  return {};
}

// Best effort: a descriptor's interface may lie in another network namespace.
void Tap::ask_interface(const std::string& name) {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  set_name(request, name);
  if (socket && ::ioctl(socket.get(), SIOCGIFMTU, &request) == 0)
    mtu_ = static_cast<uint32_t>(request.ifr_mtu);
  request = {};
  set_name(request, name);
  if (socket && ::ioctl(socket.get(), SIOCGIFFLAGS, &request) == 0 && (request.ifr_flags & IFF_UP) == 0)
    log_warn("{0} is down: nothing goes through until somebody does: sudo ip link set {0} up", name);
}

Result<void> Tap::open_vhost() {
  for (size_t i = 0; i < taps_.size(); ++i) {
    UniqueFd fd(::open("/dev/vhost-net", O_RDWR | O_CLOEXEC));
    const int error = errno;
    if (!fd && error == EACCES)
      return fail_with_hint("/dev/vhost-net: this user may not open it",
                            "join group kvm, or choose vhost: off");
    if (!fd)
      return fail_with_hint("/dev/vhost-net: " + errno_text(error),
                            "load the driver: sudo modprobe vhost_net, or choose vhost: off");
    vhost_features_ = SNUG_TRY(with_context(VhostNet::prepare(fd.get()), "/dev/vhost-net"));
    vhost_.push_back(std::move(fd));
  }
  return {};
}

TapFiles Tap::files() const {
  TapFiles files;
  for (const UniqueFd& fd : taps_) files.taps.push_back(fd.get());
  for (const UniqueFd& fd : vhost_) files.vhost.push_back(fd.get());
  files.vhost_features = vhost_features_;
  return files;
}

}  // namespace snug
