#include "guest-images/agent/interface.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <ctime>
#include <utility>

#include "guest-images/agent/connection.h"
#include "guest-images/agent/dhcp.h"
#include "guest-images/agent/small_files.h"

namespace snug::agent {
namespace {

constexpr int kAttempts = 5;
constexpr int kPatienceMs = 1000;
constexpr uint32_t kUsualMask = 0xffffff00;

int64_t now_ms() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return int64_t{time.tv_sec} * 1000 + time.tv_nsec / 1'000'000;
}

// One interface, through a socket that no packet passes.
class Interface {
 public:
  explicit Interface(const char* name)
      : name_(name), socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {}

  int index() const {
    ifreq request = named();
    return ::ioctl(socket_.get(), SIOCGIFINDEX, &request) == 0 ? request.ifr_ifindex : 0;
  }
  HardwareAddress hardware_address() const {
    HardwareAddress address{};
    ifreq request = named();
    ::ioctl(socket_.get(), SIOCGIFHWADDR, &request);
    std::memcpy(address.data(), request.ifr_hwaddr.sa_data, address.size());
    return address;
  }
  bool set_hardware_address(const HardwareAddress& address) const {
    ifreq request = named();
    request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    std::memcpy(request.ifr_hwaddr.sa_data, address.data(), address.size());
    return ::ioctl(socket_.get(), SIOCSIFHWADDR, &request) == 0;
  }
  bool is_up() const {
    ifreq request = named();
    return ::ioctl(socket_.get(), SIOCGIFFLAGS, &request) == 0 && (request.ifr_flags & IFF_UP) != 0;
  }
  void raise() const {
    ifreq request = named();
    ::ioctl(socket_.get(), SIOCGIFFLAGS, &request);
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    ::ioctl(socket_.get(), SIOCSIFFLAGS, &request);
  }
  bool take(const Lease& lease) const {
    if (!set(SIOCSIFADDR, lease.address)) return false;
    set(SIOCSIFNETMASK, lease.mask != 0 ? lease.mask : htonl(kUsualMask));
    forget_default_routes();
    if (lease.gateway == 0) return true;
    // It may lie outside of the address's own network.
    add_route(lease.gateway, htonl(INADDR_BROADCAST), 0);
    return add_route(0, 0, lease.gateway);
  }

 private:
  ifreq named() const {
    ifreq request{};
    std::strncpy(request.ifr_name, name_, IFNAMSIZ - 1);
    return request;
  }
  static void put(sockaddr& place, uint32_t address) {
    sockaddr_in internet{};
    internet.sin_family = AF_INET;
    internet.sin_addr.s_addr = address;
    std::memcpy(&place, &internet, sizeof internet);
  }
  bool set(unsigned long what, uint32_t address) const {
    ifreq request = named();
    put(request.ifr_addr, address);
    return ::ioctl(socket_.get(), what, &request) == 0;
  }
  void forget_default_routes() const {
    constexpr int kMost = 8;
    rtentry route{};
    put(route.rt_dst, 0);
    put(route.rt_genmask, 0);
    std::array<char, IFNAMSIZ> device = device_name();
    route.rt_dev = device.data();
    for (int i = 0; i < kMost && ::ioctl(socket_.get(), SIOCDELRT, &route) == 0; ++i) {
    }
  }
  std::array<char, IFNAMSIZ> device_name() const {
    std::array<char, IFNAMSIZ> device{};
    std::strncpy(device.data(), name_, device.size() - 1);
    return device;
  }
  bool add_route(uint32_t to, uint32_t mask, uint32_t gateway) const {
    rtentry route{};
    put(route.rt_dst, to);
    put(route.rt_genmask, mask);
    put(route.rt_gateway, gateway);
    route.rt_flags = static_cast<unsigned short>(RTF_UP | (gateway != 0 ? RTF_GATEWAY : 0) |
                                                 (mask == htonl(INADDR_BROADCAST) ? RTF_HOST : 0));
    std::array<char, IFNAMSIZ> device = device_name();
    route.rt_dev = device.data();
    return ::ioctl(socket_.get(), SIOCADDRT, &route) == 0;
  }

  const char* name_;
  Fd socket_;
};

// A conversation with whichever server answers.
class Client {
 public:
  Client(const Interface& interface, const HardwareAddress& address)
      : address_(address), socket_(::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_IP))) {
    to_.sll_family = AF_PACKET;
    to_.sll_protocol = htons(ETH_P_IP);
    to_.sll_ifindex = interface.index();
    ::bind(socket_.get(), reinterpret_cast<sockaddr*>(&to_), sizeof to_);
    to_.sll_halen = ETH_ALEN;
    std::memset(to_.sll_addr, 0xff, ETH_ALEN);
    (void)!::getrandom(&transaction_, sizeof transaction_, GRND_INSECURE);
  }

  // Its answer to a discovery, or to the request for `offer`.
  std::optional<DhcpAnswer> ask(const Lease* offer) const {
    const std::string packet = dhcp_packet(transaction_, address_, offer);
    if (::sendto(socket_.get(), packet.data(), packet.size(), 0, reinterpret_cast<const sockaddr*>(&to_),
                 sizeof to_) < 0)
      return std::nullopt;
    const int64_t deadline = now_ms() + kPatienceMs;
    std::array<char, 2048> buffer;
    for (int64_t left; (left = deadline - now_ms()) > 0;) {
      pollfd wait{socket_.get(), POLLIN, 0};
      if (::poll(&wait, 1, static_cast<int>(left)) <= 0) continue;
      const ssize_t count = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
      if (count <= 0) continue;
      const auto answer =
          read_dhcp_packet({buffer.data(), static_cast<size_t>(count)}, transaction_, address_);
      if (!answer) continue;
      const bool wanted = offer == nullptr
                              ? answer->type == DhcpMessage::kOffer
                              : answer->type == DhcpMessage::kAck || answer->type == DhcpMessage::kNak;
      if (wanted) return answer;
    }
    return std::nullopt;
  }

 private:
  HardwareAddress address_;
  Fd socket_;
  sockaddr_ll to_{};
  uint32_t transaction_ = 0;
};

// A setting of the kernel's that is on as long as this lives; where there is none, or it was on, nothing.
class Switched {
 public:
  explicit Switched(std::string file) : file_(std::move(file)), was_off_(read_file(file_) == "0\n") {
    if (was_off_) write_file(file_, "1", Write::kReplace);
  }
  ~Switched() {
    if (was_off_) write_file(file_, "0", Write::kReplace);
  }
  Switched(const Switched&) = delete;
  Switched& operator=(const Switched&) = delete;

 private:
  std::string file_;
  bool was_off_;
};

std::string text_of(uint32_t address) {
  std::array<char, INET_ADDRSTRLEN> text{};
  ::inet_ntop(AF_INET, &address, text.data(), text.size());
  return text.data();
}

}  // namespace

bool configure_by_dhcp(const char* name, NameServers& servers) {
  const Interface interface(name);
  interface.raise();
  const Client client(interface, interface.hardware_address());
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const auto offer = client.ask(nullptr);
    if (!offer) continue;
    const auto answer = client.ask(&offer->lease);
    if (!answer || answer->type != DhcpMessage::kAck || answer->lease.address == 0) continue;
    for (const uint32_t server : answer->lease.name_servers) servers.push_back(text_of(server));
    return interface.take(answer->lease);
  }
  return false;
}

std::vector<std::string> interface_names() {
  std::vector<std::string> names;
  struct if_nameindex* const all = ::if_nameindex();
  if (all == nullptr) return names;
  for (const auto* at = all; at->if_index != 0; ++at) names.emplace_back(at->if_name);
  ::if_freenameindex(all);
  return names;
}

HardwareAddress hardware_address(const std::string& name) {
  return Interface(name.c_str()).hardware_address();
}

bool set_hardware_address(const std::string& name, const HardwareAddress& address) {
  // The kernel announces it when it is asked to. Whoever has heard the old one in the meantime would go on
  // to send what it has for us there, and we would see none of it.
  const Switched arp("/proc/sys/net/ipv4/conf/" + name + "/arp_notify");
  const Switched neighbours("/proc/sys/net/ipv6/conf/" + name + "/ndisc_notify");
  return Interface(name.c_str()).set_hardware_address(address);
}

bool is_up(const std::string& name) { return Interface(name.c_str()).is_up(); }

}  // namespace snug::agent
