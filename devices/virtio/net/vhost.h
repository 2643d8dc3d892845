// A pair of queues that the kernel works on by itself (vhost-net; include/uapi/linux/vhost.h): it takes
// frames from the guest's ring to the tap interface and back, hears doorbells and interrupts the guest, all
// without this process.
//
// Owner: a tap backend. Thread: the device's lock held.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "devices/virtio/device.h"
#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug {

class VhostNet {
 public:
  enum Ring : unsigned { kReceive, kTransmit, kRings };

  // The features of an open /dev/vhost-net. Errors: it cannot do what every driver asks for.
  static Result<uint64_t> prepare(int fd);

  // `fd`: prepared, the caller's, outlives this; it belongs to this process from now on. Errors: it is
  // another's, no descriptor left.
  static Result<std::unique_ptr<VhostNet>> create(int fd);
  VhostNet(const VhostNet&) = delete;
  VhostNet& operator=(const VhostNet&) = delete;
  ~VhostNet() { stop(); }

  // The rings are the kernel's from now on. At the beginning of each ring after forget(), else where it left
  // off. `features`: what was negotiated. Errors: the kernel refuses; nothing has happened then.
  Result<void> start(const GuestMemory& memory, uint64_t features,
                     const std::array<VirtioRingPlace, kRings>& rings, int tap_fd);
  // The kernel touches neither rings nor memory once it returns. Idempotent.
  void stop();
  void forget() { next_ = {}; }
  bool running() const { return running_; }
  // Where the guest is interrupted for a ring has changed. While it runs.
  void set_interrupt(Ring ring, int event_fd);

  // Adding 1 tells the kernel to look at the ring.
  int kick_fd(Ring ring) const { return kicks_[ring].get(); }
  // Becomes readable when a ring breaks the rules.
  int error_fd() const { return error_.get(); }

 private:
  explicit VhostNet(int fd) : fd_(fd) {}
  Result<void> set_up(const GuestMemory& memory, uint64_t features,
                      const std::array<VirtioRingPlace, kRings>& rings, int tap_fd);
  Result<void> set_up_ring(const GuestMemory& memory, unsigned index, const VirtioRingPlace& ring);
  Result<void> set_file(unsigned long request, unsigned ring, int file, const char* what);

  int fd_;
  bool running_ = false;
  std::array<UniqueFd, kRings> kicks_;
  UniqueFd error_;
  std::array<uint16_t, kRings> next_{};  // available index to go on from
};

}  // namespace snug
