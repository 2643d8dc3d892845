// The registers of the transport, with a device that does whatever the input says.
#include "tests/fuzz/devices/virtio_guest.h"

namespace snug::fuzz {
namespace {

class Device final : public VirtioDevice {
 public:
  VirtioType type() const override { return VirtioType::kConsole; }
  std::string_view name() const override { return "fuzzed"; }
  uint32_t pci_class() const override { return 0x078000; }
  uint64_t features() const override { return 5; }
  std::span<const uint16_t> queue_sizes() const override { return kSizes; }
  void read_config(uint64_t, std::span<std::byte> data) const override {
    std::fill(data.begin(), data.end(), std::byte{0x5a});
  }
  void start(VirtioHost& host, uint64_t features) override {
    FUZZ_CHECK(!started_ && !stopping_);
    FUZZ_CHECK((features & kVirtioVersion1) != 0);
    host_ = &host;
    started_ = true;
  }
  void queue_ready(uint16_t queue) override {
    FUZZ_CHECK(started_ && !stopping_ && queue < kSizes.size() && !queue_stopping_[queue]);
    host_->queue(queue).disable_notifications();
    for (unsigned i = 0; i < patience; ++i) {
      VirtChain chain;
      const auto popped = host_->queue(queue).pop(chain);
      if (popped == VirtQueue::Pop::kBroken) return host_->needs_reset(host_->queue(queue).why());
      if (popped == VirtQueue::Pop::kEmpty) break;
      taken_[queue].push_back(chain.head);
      FUZZ_CHECK(taken_[queue].size() <= host_->queue(queue).size());
    }
    host_->queue(queue).enable_notifications();
  }
  bool stop() override {
    FUZZ_CHECK(started_);
    started_ = false;
    stopping_ = under_way();
    for (uint16_t i = 0; i < kSizes.size(); ++i) queue_stopping_[i] = false;
    if (!stopping_) host_ = nullptr;
    return !stopping_;
  }
  bool stop_queue(uint16_t queue) override {
    FUZZ_CHECK(started_ && !queue_stopping_[queue]);
    queue_stopping_[queue] = !taken_[queue].empty();
    return !queue_stopping_[queue];
  }
  // What was taken comes back, as from a backend.
  void finish() {
    if (host_ == nullptr) return;
    for (uint16_t i = 0; i < kSizes.size(); ++i) {
      for (const uint16_t head : taken_[i])
        if (!stopping_ && !queue_stopping_[i]) (void)host_->queue(i).push(head, 4);
      taken_[i].clear();
      if (queue_stopping_[i] && !stopping_) {
        queue_stopping_[i] = false;
        host_->queue_stopped(i);
      } else if (!stopping_) {
        host_->used(i);
      }
    }
    if (!stopping_) return;
    stopping_ = false;
    host_->stopped();
  }
  void event(uint8_t what) {
    if (!started_) return;
    if ((what & 3) == 0) host_->config_changed();
    if ((what & 3) == 1) host_->needs_reset("of the input");
    if ((what & 3) == 2) host_->again((what >> 2) % kSizes.size());
  }
  unsigned patience = 100;

 private:
  static constexpr std::array<uint16_t, 3> kSizes{16, 8, 1024};
  bool under_way() const { return !taken_[0].empty() || !taken_[1].empty() || !taken_[2].empty(); }

  VirtioHost* host_ = nullptr;
  bool started_ = false;
  bool stopping_ = false;
  std::array<bool, 3> queue_stopping_{};
  std::array<std::vector<uint16_t>, 3> taken_;
};

// 2.1, 3.1.1: the sets of status bits that there can be, but for NEEDS_RESET and FAILED.
bool legal(uint8_t status) {
  const int bits = status & ~(64 | 128);
  return bits == 0 || bits == 1 || bits == 3 || bits == 11 || bits == 15;
}

}  // namespace
}  // namespace snug::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace snug;
  fuzz::Input input(data, size);
  fuzz::Device device;
  fuzz::VirtioGuest guest(device, [&device] { device.finish(); });
  guest.bring_up(input.take(8), static_cast<uint16_t>(1u << input.take8() % 4));
  while (!input.empty()) {
    const uint8_t op = input.take8();
    if ((op & 3) == 3) {
      auto lock = guest.transport().lock();
      device.event(op >> 2);
    } else {
      guest.step(input);
    }
    const uint8_t status = guest.status();
    FUZZ_CHECK(fuzz::legal(status));
  }
  guest.settle();
  FUZZ_CHECK(guest.serves(0, {{0x30000, 4, true}}));
  guest.reset();
  guest.transport().lock()->unmap_doorbells();
  FUZZ_CHECK(guest.doorbells().bound == 0);
  return 0;
}
