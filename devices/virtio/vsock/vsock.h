// Socket device (virtio 1.2, 5.10): streams between ports of the guest and stream sockets of the host. Data
// goes from the guest's memory to a socket and back by one system call; what a socket has no room for is held
// here, up to the credit that its connection was given.
//
// Thread: as VirtioDevice; connect(), sockets_ready() and interrupted() on the event loop, with the
// transport's lock held. The guest controls every packet.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "devices/virtio/device.h"
#include "devices/virtio/vsock/backend.h"
#include "devices/virtio/vsock/connection.h"
#include "vmm/base/log.h"
#include "vmm/base/result.h"

namespace snug {

struct VsockConfig {
  // Guests of different monitors do not see each other: they may all have the same.
  uint64_t cid = 3;                                   // is_guest_cid()
  std::chrono::milliseconds connect_timeout{10'000};  // for the guest's answer
  std::chrono::milliseconds close_timeout{8'000};     // for its RST when both sides have nothing more to say
  std::chrono::milliseconds busy_timeout{2'000};      // for a backend that says EAGAIN
  std::chrono::milliseconds busy_pause{10};           // until it is asked again
  // Of a reset that a guest is to hear of before anything else: for a buffer that it can be told in, and then
  // for it to be given back, when it has heard. A guest on a busy host takes seconds.
  std::chrono::milliseconds event_timeout{2'000};
  std::chrono::milliseconds heard_timeout{30'000};
};

class VirtioVsock final : public VirtioDevice {
 public:
  static constexpr uint16_t kReceive = 0, kTransmit = 1, kEvent = 2;  // queues (5.10.2)
  static constexpr size_t kConnectionsMax = 1024;
  // What a host that does not read holds up at most; less for those that come when there are many.
  static constexpr uint32_t kRoom = 256 << 10, kRoomOfMany = 32 << 10;
  static constexpr size_t kMany = 128;
  static constexpr size_t kResetsMax = 256;

  // `backend` outlives it.
  static Result<std::unique_ptr<VirtioVsock>> create(const VsockConfig& config, VsockBackend& backend);
  ~VirtioVsock() override;

  // Reaches for a port of the guest with `stream`, a connected stream socket. `done` is called once, now or
  // later. Its errors: EHOSTUNREACH the guest has no driver (yet), ECONNREFUSED nobody listens there,
  // ETIMEDOUT the guest did not answer, ECONNRESET it was reset, ECONNABORTED the other end of `stream` was
  // closed meanwhile, ENOBUFS too many connections.
  void connect(uint32_t guest_port, UniqueFd stream, VsockDone done);
  // To be watched, for what sockets_ready() is told of.
  int event_fd() const { return epoll_.get(); }
  void sockets_ready();
  // All connections are gone and the guest has another id (5.10.6.6); it is told so.
  void interrupted(uint64_t cid);

  size_t connections() const { return connections_.size(); }
  // How much of the guest's is held here for hosts that do not read. Bytes.
  size_t held() const;

  VirtioType type() const override { return VirtioType::kSocket; }
  std::string_view name() const override { return "vsock"; }
  uint32_t pci_class() const override { return 0x078000; }
  uint64_t features() const override { return kStreamFeature; }
  std::span<const uint16_t> queue_sizes() const override { return kQueueSizes; }
  void read_config(uint64_t offset, std::span<std::byte> data) const override;
  void start(VirtioHost& host, uint64_t features) override;
  void queue_ready(uint16_t queue) override;
  bool stop() override;
  bool stop_queue(uint16_t queue) override;
  bool settle() override;
  void save(SectionWriter& out) const override;
  // The guest is told that all its connections are gone; who listens goes on.
  void restore(SectionReader& in) override;

 private:
  using Clock = VsockConnection::Clock;
  using State = VsockConnection::State;
  static constexpr uint64_t kStreamFeature = 1;  // 5.10.3
  static constexpr std::array<uint16_t, 3> kQueueSizes{128, 128, 16};

  // A buffer of the guest for a packet to come.
  struct Spare {
    VirtChain chain;
    uint64_t room = 0;  // behind the header
  };
  // The answer to a packet that belongs to nothing.
  struct Refusal {
    VsockPorts ports;
    uint16_t type;
  };

  VirtioVsock(const VsockConfig& config, VsockBackend& backend) : config_(config), backend_(backend) {}

  void halt(const std::string& why);

  // From the guest.
  void transmit();
  void take_packet();
  void take_packet(const VsockHeader& header, VsockConnection& connection, uint64_t data_there);
  void take_request(const VsockHeader& header);
  void take_reset(VsockConnection& connection);
  void refuse(VsockPorts ports, uint16_t type = kVsockStream);
  void give_up(VsockConnection& connection, const char* why);
  void finish(VsockConnection& connection);

  // To the guest.
  void pump();
  bool find_buffers(VirtQueue& queue);
  void send_refusal(VirtQueue& queue);
  void serve(VirtQueue& queue, VsockConnection& connection);
  bool send_data(VirtQueue& queue, VsockConnection& connection);
  void send_control(VirtQueue& queue, VsockConnection& connection, VsockOp op);
  void send_packet(VirtQueue& queue, const Spare& spare, const VsockHeader& header, size_t data);
  void forget_spares(size_t count);
  void send_event();
  void begin_event();
  void wait_for_event(std::chrono::milliseconds patience);
  bool guest_hears_event() const;
  VsockHeader header_for(VsockPorts ports) const;

  // Connections.
  VsockConnection* add(VsockPorts ports, State state, UniqueFd socket);
  VsockConnection* find(VsockPorts ports);
  bool watch(VsockConnection& connection);
  void settle(VsockConnection& connection);
  void leave(VsockConnection& connection);
  void remove(VsockConnection& connection, int error = ECONNRESET);
  void remove_all(bool keep_leftovers);
  void reopen(VsockConnection& connection);
  void host_event(VsockConnection& connection, uint32_t epoll_events);
  void set_deadline(VsockConnection& connection, Clock::time_point deadline);
  void arm_timer(Clock::time_point deadline);
  void timer_fired();
  void timed_out(VsockConnection& connection);
  uint32_t free_host_port(uint32_t guest_port);

  VsockConfig config_;
  VsockBackend& backend_;
  UniqueFd epoll_;  // connections by id; 0: the timer
  UniqueFd timer_;
  Clock::time_point timer_at_ = Clock::time_point::max();
  VirtioHost* host_ = nullptr;
  bool halted_ = false;
  RateLimit complaints_;

  std::unordered_map<uint64_t, std::unique_ptr<VsockConnection>> connections_;  // by id
  std::unordered_map<uint64_t, VsockConnection*> by_ports_;                     // those the guest knows of
  uint64_t next_id_ = 1;
  uint32_t next_port_ = 0;
  std::deque<uint64_t> ready_;    // ids: of those with something for the guest
  std::deque<Refusal> refusals_;  // at most kResetsMax
  bool transmit_waits_ = false;   // for refusals_ to become fewer
  bool event_due_ = false;
  // The guest has been told that its connections are gone, and has not said yet that it has heard it: what it
  // would get before that would go with them.
  bool event_unheard_ = false;
  Clock::time_point heard_at_latest_;

  VirtChain chain_;
  std::vector<Spare> spares_;  // the first spare_count_ are buffers in hand
  size_t spare_count_ = 0;
  std::vector<iovec> parts_;
};

}  // namespace snug
