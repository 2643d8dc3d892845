// File system device (virtio 1.2, 5.11): a folder of the host in the guest. Only its registers are here:
// another process serves the requests, works on the rings by itself and has the files (vmm/shares). The
// device tells it where the rings are and what interrupts (share_protocol.h).
//
// Thread: as VirtioDevice; server_ready() and interrupts_wanted() on the event loop, with the transport's
// lock held.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "devices/virtio/device.h"
#include "devices/virtio/fs/share_protocol.h"
#include "vmm/base/unique_fd.h"

namespace snug {

struct FsConfig {
  std::string tag;                          // by which the guest mounts it: 1 to 36 bytes
  uint16_t queues = 1;                      // for requests, 1 to share::kQueuesMax - 1
  uint16_t queue_size = share::kQueueSize;  // entries of each, a power of two
  int socket = -1;                          // to the server; the caller's
};

class VirtioFs final : public VirtioDevice {
 public:
  // Tells the server of a new machine. `memory`: shared, outlives this. Errors: no descriptor left, a server
  // that is gone.
  static Result<std::unique_ptr<VirtioFs>> create(FsConfig config, const GuestMemory& memory);
  ~VirtioFs() override;

  // To be watched, edge-triggered for both directions: server_ready().
  int server_fd() const { return config_.socket; }
  void server_ready();
  // To be watched: the server adds 1 for an interrupt that no descriptor leads to.
  int interrupt_fd() const { return interrupts_.get(); }
  void interrupts_wanted();

  VirtioType type() const override { return VirtioType::kFs; }
  std::string_view name() const override { return name_; }
  uint32_t pci_class() const override { return 0x018000; }
  // Where the server left off only it knows.
  uint64_t refused_features() const override { return kVirtioRingReset; }
  std::span<const uint16_t> queue_sizes() const override { return queue_sizes_; }
  void read_config(uint64_t offset, std::span<std::byte> data) const override;
  void start(VirtioHost& host, uint64_t features) override;
  void go_on(VirtioHost& host, uint64_t features, SectionReader& in) override;
  void queue_ready(uint16_t) override {}
  bool stop() override;
  bool stop_queue(uint16_t) override { return true; }
  void interrupt_moved(uint16_t queue) override;
  std::string unsaveable() const override;
  bool settle() override;
  void save(SectionWriter& out) const override;
  void wake() override;
  // While it is settled: whether the guest has mounted it, and may know files of it.
  bool mounted() const { return mounted_; }

 private:
  explicit VirtioFs(FsConfig config);
  Result<void> attach(const GuestMemory& memory);
  // What is still to be said, as far as the server listens.
  void say();
  int say_start();
  void begin(VirtioHost& host, uint64_t features);
  int say_moved(uint16_t queue);
  bool said(int error);
  void on_news(const share::News& news, const std::string& text);
  void give_rings_back();
  int interrupt_of(uint16_t queue) const;

  FsConfig config_;
  std::string name_;
  std::vector<uint16_t> queue_sizes_;
  std::vector<UniqueFd> kicks_;  // what doorbells add to; the server waits for them
  UniqueFd interrupts_;
  uint32_t generation_ = 0;
  VirtioHost* host_ = nullptr;
  uint64_t features_ = 0;

  // Still to be said, in this order.
  bool release_unsaid_ = false;
  bool start_unsaid_ = false;
  uint32_t moved_unsaid_ = 0;  // a bit for each queue
  bool stop_unsaid_ = false;
  bool stopping_ = false;  // the server has not answered
  bool gone_ = false;      // the server is

  enum class Hold { kNone, kAsked, kHeld };
  Hold hold_ = Hold::kNone;
  bool mounted_ = false;
  std::string why_not_;  // the server has no state to tell
  UniqueFd state_;       // of the server: while it is held, or until it has been told where to go on
};

}  // namespace snug
