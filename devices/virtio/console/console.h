// Console device (virtio 1.2, 5.3) with one port: a terminal of the guest (hvc0) whose window has a size.
// Several consoles are several devices: the size of the only port lies in the configuration space, where
// drivers agree on its order, which they do not for the message that tells the size of one port among many.
//
// Thread: as VirtioDevice; peer_ready() and set_size() on the event loop, with the transport's lock held.
#pragma once

#include <array>
#include <functional>
#include <string>

#include "devices/virtio/console/stream.h"
#include "devices/virtio/device.h"

namespace snug {

class VirtioConsole final : public VirtioDevice {
 public:
  // `name`: for messages. `peer` outlives this. `on_program`: once, a program of the guest prints; with the
  // transport's lock held.
  VirtioConsole(std::string name, PortPeer& peer, std::function<void()> on_program = {})
      : name_(std::move(name)),
        on_program_(std::move(on_program)),
        stream_(&peer, PortStream::WhenStalled::kDrop) {}

  // The peer has bytes, takes some, has come or has gone.
  void peer_ready();
  // Told to the guest, which tells its programs (SIGWINCH). 0 by 0: not known. Linux forgets what it is told
  // while nobody has the terminal open, and does not ask: the same size again tells it once more, if the
  // guest has used the console meanwhile. So does its first output.
  void set_size(const WindowSize& size);
  uint64_t dropped_bytes() const { return stream_.dropped_bytes(); }

  VirtioType type() const override { return VirtioType::kConsole; }
  std::string_view name() const override { return name_; }
  uint32_t pci_class() const override { return 0x078000; }
  uint64_t features() const override;
  std::span<const uint16_t> queue_sizes() const override { return kQueueSizes; }
  void read_config(uint64_t offset, std::span<std::byte> data) const override;
  void write_config(uint64_t offset, std::span<const std::byte> data) override;
  void start(VirtioHost& host, uint64_t features) override;
  void queue_ready(uint16_t queue) override;
  bool stop() override;
  bool stop_queue(uint16_t queue) override;
  bool settle() override;
  void save(SectionWriter& out) const override;
  void restore(SectionReader& in) override;

 private:
  static constexpr uint16_t kReceive = 0;
  static constexpr uint16_t kTransmit = 1;
  static constexpr std::array<uint16_t, 2> kQueueSizes{64, 64};

  std::string name_;
  std::function<void()> on_program_;  // none: it has been told
  PortStream stream_;
  VirtioHost* host_ = nullptr;
  WindowSize size_;
  bool used_ = false;  // since the size was told
  bool first_output_ = true;
};

}  // namespace snug
