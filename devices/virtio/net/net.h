// Network device (virtio 1.2, 5.1). Frames of the guest go from its memory to the backend in one system call;
// frames for it are copied into its buffers, over several of them where it allows that.
//
// Thread: as VirtioDevice; backend_ready() on the event loop, with the transport's lock held.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "devices/virtio/device.h"
#include "devices/virtio/net/backend.h"
#include "devices/virtio/net/control.h"

namespace snug {

struct NetConfig {
  std::string name;  // for messages
  std::array<uint8_t, 6> mac{};
  uint16_t mtu = 0;           // told to the guest; 0: not told
  uint16_t pairs = 1;         // of queues, 1 to kMaxPairs
  uint16_t queue_size = 256;  // entries of each, a power of two from 16
  // A control queue also without several pairs: offloads that can be switched, another address. Each command
  // makes the guest's CPU wait.
  bool control = false;
  // The backend is broken; called at most once for each, with the transport's lock held.
  std::function<void()> broken;
};

class VirtioNet final : public VirtioDevice {
 public:
  VirtioNet(NetConfig config, std::unique_ptr<NetBackend> backend);

  // To be watched, edge-triggered, for what backend_ready() is told of.
  int event_fd(uint16_t pair) const { return backend_->fd(pair); }
  uint16_t pairs() const { return config_.pairs; }
  const NetBackend& backend() const { return *backend_; }
  // Frames have come or there is room to send.
  void backend_ready(uint16_t pair);
  // The cable; up at first.
  void set_link(bool up);
  // Another backend in place of one that broke.
  void connect(std::unique_ptr<NetBackend> backend);

  VirtioType type() const override { return VirtioType::kNet; }
  std::string_view name() const override { return config_.name; }
  uint32_t pci_class() const override { return 0x020000; }
  uint64_t features() const override;
  uint64_t refused_features() const override { return backend_->refused_features(); }
  std::span<const uint16_t> queue_sizes() const override { return queue_sizes_; }
  void read_config(uint64_t offset, std::span<std::byte> data) const override;
  void start(VirtioHost& host, uint64_t features) override;
  void queue_ready(uint16_t queue) override;
  bool stop() override;
  bool stop_queue(uint16_t queue) override;
  void interrupt_moved(uint16_t queue) override;
  std::string unsaveable() const override;
  bool settle() override;
  void save(SectionWriter& out) const override;
  void restore(SectionReader& in) override;

  static constexpr uint16_t kMaxPairs = 16;

 private:
  // A frame of the guest that has not been sent yet.
  struct Outgoing {
    VirtChain chain;
    OutFrame frame;
    std::vector<iovec> parts;
    std::vector<std::byte> copy;  // of a frame in very many parts
  };
  // A buffer of the guest for frames to come.
  struct Incoming {
    VirtChain chain;
    uint64_t room = 0;  // bytes
  };
  // The first `count` are in use; the others keep their memory for later.
  template <class T>
  struct Reused {
    std::vector<T> items;
    size_t count = 0;
    T& add() {
      if (count == items.size()) items.emplace_back();
      return items[count++];
    }
  };
  struct Pair {
    Reused<Outgoing> outgoing;
    Reused<Incoming> incoming;
    // The backend works on its rings, now / ever since the start: where it left off only it knows.
    bool taken_over = false;
    bool foreign = false;
  };

  void transmit(uint16_t pair);
  bool parse(VirtQueue& queue, Outgoing& out);
  size_t send(uint16_t pair, VirtQueue& queue);
  void receive(uint16_t pair);
  enum class Delivered { kYes, kNoBuffers, kBroken };
  Delivered deliver(uint16_t pair, VirtQueue& queue, const InFrame& frame);
  void control();
  bool execute(const NetCommand& command);
  bool set_pairs(uint16_t pairs);
  uint16_t pair_count() const;
  bool has_control() const { return config_.control || config_.pairs > 1; }
  void offer_rings(uint16_t pair);
  void take_back(uint16_t pair);
  void check_backend();

  NetConfig config_;
  std::vector<uint16_t> queue_sizes_;
  std::unique_ptr<NetBackend> backend_;
  VirtioHost* host_ = nullptr;
  uint64_t driver_features_ = 0;
  std::array<uint8_t, 6> mac_;  // as the guest has it
  uint16_t active_pairs_ = 1;
  uint64_t offloads_ = 0;  // of the guest's, that it has switched on
  bool link_up_ = true;
  bool announce_ = false;  // the guest is asked to tell the network where it is
  bool told_broken_ = false;
  VirtChain chain_;
  std::vector<Pair> pairs_;
  std::vector<VirtUsed> used_;
  std::vector<OutFrame> frames_;
};

}  // namespace snug
