// Entropy device (virtio 1.2, 5.4): fills the guest's buffers with random bytes of the host.
//
// Thread: as VirtioDevice.
#pragma once

#include <array>
#include <functional>

#include "devices/virtio/device.h"

namespace snug {

// Fills the whole span with random bytes; never blocks.
using RandomSource = std::function<void(std::span<std::byte>)>;

class VirtioRng final : public VirtioDevice {
 public:
  explicit VirtioRng(RandomSource source) : source_(std::move(source)) {}

  VirtioType type() const override { return VirtioType::kRng; }
  std::string_view name() const override { return "rng"; }
  uint32_t pci_class() const override { return 0x00ff00; }
  std::span<const uint16_t> queue_sizes() const override { return kQueueSizes; }
  void read_config(uint64_t, std::span<std::byte>) const override {}
  void start(VirtioHost& host, uint64_t features) override;
  void queue_ready(uint16_t queue) override;
  bool stop() override;
  bool stop_queue(uint16_t) override { return true; }

 private:
  static constexpr std::array<uint16_t, 1> kQueueSizes{64};

  RandomSource source_;
  VirtioHost* host_ = nullptr;
  VirtChain chain_;
};

}  // namespace snug
