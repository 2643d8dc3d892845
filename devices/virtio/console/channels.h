// Console device (virtio 1.2, 5.3) with many ports, each a named channel between programs of the guest
// (/dev/virtio-ports/NAME) and of the host. Either side is told when the other's program opens or closes.
//
// Port 0 is not used: drivers that know one port only take it for a console.
//
// Thread: as VirtioDevice; peer_ready() on the event loop, with the transport's lock held.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "devices/virtio/console/stream.h"
#include "devices/virtio/device.h"

namespace snug {

struct ChannelConfig {
  std::string name;
  PortPeer* peer = nullptr;  // the caller's
};

class VirtioChannels final : public VirtioDevice {
 public:
  static constexpr size_t kMaxChannels = 15;

  // At most kMaxChannels. `on_program`: a program of the guest has opened one; with the transport's lock
  // held.
  explicit VirtioChannels(std::vector<ChannelConfig> channels, std::function<void()> on_program = {});

  // The peer of channel `index` has bytes, takes some, has come or has gone.
  void peer_ready(size_t index);

  VirtioType type() const override { return VirtioType::kConsole; }
  std::string_view name() const override { return "channels"; }
  uint32_t pci_class() const override { return 0x078000; }
  uint64_t features() const override;
  std::span<const uint16_t> queue_sizes() const override { return queue_sizes_; }
  void read_config(uint64_t offset, std::span<std::byte> data) const override;
  void start(VirtioHost& host, uint64_t features) override;
  void queue_ready(uint16_t queue) override;
  bool stop() override;
  bool stop_queue(uint16_t queue) override;
  bool settle() override;
  void save(SectionWriter& out) const override;
  void restore(SectionReader& in) override;

 private:
  struct Channel {
    std::string name;
    PortPeer* peer;
    PortStream stream;
    bool guest_open = false;
    bool peer_open = false;
    // What the guest is to be told, in this order.
    bool tell_add = false;
    bool tell_name = false;
    bool tell_close = false;
    bool tell_open = false;
    bool told_open = false;
  };

  void note_peer(Channel& channel);
  void handle_control(uint32_t id, uint16_t event, uint16_t value);
  void control_from_guest();
  void control_to_guest();
  size_t next_message(uint32_t id, std::span<std::byte> message);

  std::vector<uint16_t> queue_sizes_;
  std::function<void()> on_program_;
  std::vector<Channel> channels_;
  PortStream unused_port_;  // port 0
  VirtioHost* host_ = nullptr;
  bool multiport_ = false;
  VirtChain chain_;
};

}  // namespace snug
