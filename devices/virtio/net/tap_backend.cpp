#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "devices/virtio/net/backend.h"
#include "devices/virtio/net/features.h"
#include "devices/virtio/net/vhost.h"
#include "vmm/base/log.h"

namespace snug {
namespace {

constexpr size_t kPartsMax = 1024;  // UIO_MAXIOV
// pwritev2(2): as writev, which would be one more call to allow (vmm/jail).
constexpr off_t kNoOffset = -1;
constexpr size_t kHeader = sizeof(VirtioNetHeader);
// Since Linux 6.2; older headers do not name them.
constexpr unsigned kTunUso4 = 0x20;
constexpr unsigned kTunUso6 = 0x40;

// What the kernel's tap does of 5.1.3, and how it says so. (Fragments of UDP it has given up.)
struct Offload {
  uint64_t guest_bit;  // the guest takes such frames
  uint64_t host_bit;   // the guest sends such frames
  unsigned tun_flag;
};
constexpr std::array kOffloads{
    Offload{net::kGuestChecksum, net::kChecksum, TUN_F_CSUM},
    Offload{net::kGuestTso4, net::kHostTso4, TUN_F_TSO4},
    Offload{net::kGuestTso6, net::kHostTso6, TUN_F_TSO6},
    Offload{net::kGuestEcn, net::kHostEcn, TUN_F_TSO_ECN},
    // The kernel knows both or none.
    Offload{net::kGuestUso4, net::kHostUso, kTunUso4},
    Offload{net::kGuestUso6, net::kHostUso, kTunUso6},
};

// The ring features that vhost can have; anything newer is between the guest and this process.
constexpr uint64_t kVhostRings = kVirtioVersion1 | kVirtioIndirect | kVirtioEventIdx | net::kMergeableBuffers;
constexpr uint64_t kAllRings = (~uint64_t{0} << 28 & ~(~uint64_t{0} << 50)) | net::kMergeableBuffers;

class TapBackend final : public NetBackend {
 public:
  explicit TapBackend(const TapFiles& files) : vhost_features_(files.vhost_features) {
    for (const int fd : files.taps) queues_.emplace_back().fd = fd;
    segments_udp_ = ::ioctl(queues_[0].fd, TUNSETOFFLOAD, TUN_F_CSUM | kTunUso4 | kTunUso6) == 0;
  }
  Result<void> add_vhost(const std::vector<int>& fds);
  ~TapBackend() override { stop(); }

  uint64_t offloads() const override;
  uint64_t refused_features() const override;
  void start(uint64_t features) override;
  void stop() override;
  void set_offloads(uint64_t features) override;
  void set_pairs(uint16_t pairs) override;
  size_t send(uint16_t pair, std::span<const OutFrame> frames) override;
  std::optional<InFrame> next(uint16_t pair) override;
  void take(uint16_t pair) override { queues_[pair].filled = 0; }
  int fd(uint16_t pair) const override {
    return queues_[pair].events ? queues_[pair].events.get() : queues_[pair].fd;
  }
  bool broken() const override { return broken_; }

  std::optional<Kicks> take_over(uint16_t pair, const GuestMemory& memory, const VirtioRingPlace& receive,
                                 const VirtioRingPlace& transmit) override;
  void let_go(uint16_t pair) override;
  void interrupt_moved(uint16_t pair, bool transmit, int event_fd) override {
    queues_[pair].vhost->set_interrupt(transmit ? VhostNet::kTransmit : VhostNet::kReceive, event_fd);
  }
  bool ring_broken(uint16_t pair) override;

 private:
  struct Queue {
    int fd = -1;
    bool attached = true;
    std::vector<std::byte> input;
    size_t filled = 0;  // bytes of a frame that waits in `input`
    std::unique_ptr<VhostNet> vhost;
    // With vhost: an epoll of the tap, or of what vhost complains to while frames are its business. Whoever
    // waits for it is not woken by frames then.
    UniqueFd events;
  };
  static void watch(const Queue& queue, int operation, int fd);

  std::vector<Queue> queues_;
  std::vector<iovec> parts_;
  uint64_t vhost_features_;
  uint64_t features_ = 0;
  bool segments_udp_ = false;
  bool broken_ = false;
};

Result<void> TapBackend::add_vhost(const std::vector<int>& fds) {
  for (size_t i = 0; i < fds.size(); ++i) {
    Queue& queue = queues_[i];
    queue.vhost = SNUG_TRY(VhostNet::create(fds[i]));
    queue.events = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
    if (!queue.events) return fail_errno(errno, "epoll_create1");
    watch(queue, EPOLL_CTL_ADD, queue.fd);
    watch(queue, EPOLL_CTL_ADD, queue.vhost->error_fd());
  }
  return {};
}

void TapBackend::watch(const Queue& queue, int operation, int fd) {
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {}};
  if (fd == queue.fd) event.events |= EPOLLOUT;
  ::epoll_ctl(queue.events.get(), operation, fd, &event);
}

uint64_t TapBackend::offloads() const {
  uint64_t bits = 0;
  for (const Offload& offload : kOffloads)
    if (segments_udp_ || offload.host_bit != net::kHostUso) bits |= offload.guest_bit | offload.host_bit;
  return bits;
}

uint64_t TapBackend::refused_features() const {
  return queues_[0].vhost ? kAllRings & ~(kVhostRings & vhost_features_) : 0;
}

void TapBackend::start(uint64_t features) {
  features_ = features;
  set_offloads(features);
  set_pairs(1);
  for (Queue& queue : queues_) {
    queue.filled = 0;
    if (queue.vhost) queue.vhost->forget();
  }
  // Bounded: more may come all the time.
  for (int i = 0; i < 10'000 && next(0); ++i) take(0);
}

void TapBackend::stop() {
  for (uint16_t pair = 0; pair < queues_.size(); ++pair) let_go(pair);
}

void TapBackend::set_offloads(uint64_t features) {
  unsigned flags = 0;
  for (const Offload& offload : kOffloads)
    if ((features & offload.guest_bit) != 0) flags |= offload.tun_flag;
  // 5.1.3.1: segments need checksums; the kernel does USO for both versions of IP or none.
  if ((flags & TUN_F_CSUM) == 0) flags = 0;
  if ((flags & (kTunUso4 | kTunUso6)) != (kTunUso4 | kTunUso6)) flags &= ~(kTunUso4 | kTunUso6);
  if (::ioctl(queues_[0].fd, TUNSETOFFLOAD, flags) != 0) log_debug("tap: offloads: {}", errno_text(errno));
}

void TapBackend::set_pairs(uint16_t pairs) {
  for (size_t i = 1; i < queues_.size(); ++i) {
    const bool attached = i < pairs;
    if (queues_[i].attached == attached) continue;
    ifreq request{};
    request.ifr_flags = attached ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
    if (::ioctl(queues_[i].fd, TUNSETQUEUE, &request) == 0) {
      queues_[i].attached = attached;
    } else {
      log_debug("tap: queue {}: {}", i, errno_text(errno));
    }
  }
}

size_t TapBackend::send(uint16_t pair, std::span<const OutFrame> frames) {
  size_t count = 0;
  for (const OutFrame& frame : frames) {
    VirtioNetHeader header = frame.header;
    parts_.clear();
    parts_.push_back({&header, sizeof header});
    for (const iovec& part : frame.parts) parts_.push_back(part);
    ssize_t written = -1;
    do {
      written = ::pwritev2(queues_[pair].fd, parts_.data(),
                           static_cast<int>(std::min(parts_.size(), kPartsMax)), kNoOffset, 0);
    } while (written < 0 && errno == EINTR);
    if (written < 0 && errno == EAGAIN) break;
    // A header that makes no sense, an interface that is down: the frame is lost, as on a cable.
    ++count;
  }
  return count;
}

std::optional<InFrame> TapBackend::next(uint16_t pair) {
  Queue& queue = queues_[pair];
  while (queue.filled == 0) {
    if (queue.input.empty()) queue.input.resize(kHeader + kFrameMax);
    const ssize_t count = ::read(queue.fd, queue.input.data(), queue.input.size());
    if (count < 0 && errno == EINTR) continue;
    // Somebody has deleted the interface.
    if (count < 0 && errno == EBADFD && queue.attached) broken_ = true;
    if (count <= 0) return std::nullopt;
    if (static_cast<size_t>(count) >= kHeader + kFrameMin) queue.filled = static_cast<size_t>(count);
  }
  InFrame frame;
  std::copy_n(queue.input.begin(), kHeader, std::as_writable_bytes(std::span(&frame.header, 1)).begin());
  frame.data = std::span<const std::byte>(queue.input).subspan(kHeader, queue.filled - kHeader);
  return frame;
}

std::optional<NetBackend::Kicks> TapBackend::take_over(uint16_t pair, const GuestMemory& memory,
                                                       const VirtioRingPlace& receive,
                                                       const VirtioRingPlace& transmit) {
  Queue& queue = queues_[pair];
  if (!queue.vhost) return std::nullopt;
  if (auto started = queue.vhost->start(memory, features_, {receive, transmit}, queue.fd); !started) {
    log_info("vhost-net: {}; frames go through snug", started.error().text());
    return std::nullopt;
  }
  watch(queue, EPOLL_CTL_DEL, queue.fd);
  return Kicks{queue.vhost->kick_fd(VhostNet::kReceive), queue.vhost->kick_fd(VhostNet::kTransmit)};
}

void TapBackend::let_go(uint16_t pair) {
  Queue& queue = queues_[pair];
  if (!queue.vhost || !queue.vhost->running()) return;
  queue.vhost->stop();
  watch(queue, EPOLL_CTL_ADD, queue.fd);
}

bool TapBackend::ring_broken(uint16_t pair) {
  const Queue& queue = queues_[pair];
  uint64_t count = 0;
  return queue.vhost && ::read(queue.vhost->error_fd(), &count, sizeof count) == sizeof count;
}

}  // namespace

Result<std::unique_ptr<NetBackend>> make_tap_backend(const TapFiles& files) {
  auto backend = std::make_unique<TapBackend>(files);
  SNUG_TRY(backend->add_vhost(files.vhost));
  return std::unique_ptr<NetBackend>(std::move(backend));
}

}  // namespace snug
