// A transport's doorbells: a descriptor for each queue that counts what the guest writes to its place in the
// BAR, without an exit while it is bound there.
//
// Owner: a transport. Thread: the transport's lock held.
#pragma once

#include <cstdint>
#include <vector>

#include "vmm/base/unique_fd.h"
#include "vmm/core/doorbell.h"

namespace snug {

class VirtioDoorbells {
 public:
  // That of queue n lies at `first` + n * `step` in the BAR. `binder` must outlive this.
  VirtioDoorbells(DoorbellBinder& binder, uint64_t first, uint64_t step)
      : binder_(binder), first_(first), step_(step) {}
  ~VirtioDoorbells() { unbind(); }
  VirtioDoorbells(const VirtioDoorbells&) = delete;
  VirtioDoorbells& operator=(const VirtioDoorbells&) = delete;

  // Set-up: one more queue's.
  Result<void> add();

  // What the device listens on.
  int fd(uint16_t queue) const { return bells_[queue].own.get(); }
  // Rings as the guest does.
  void ring(uint16_t queue) const;
  // Rings for the device, even when the guest's go elsewhere.
  void ring_own(uint16_t queue) const;

  // The BAR is at this address, 0 being nowhere; nothing is bound.
  void move(uint64_t bar_address);
  // All of them, unless they are or the BAR is nowhere. Errors: as DoorbellBinder, and none is bound.
  Result<void> bind();
  void unbind();
  // The guest's add to this descriptor from now on, and no more to fd(); -1: to that again. Errors: as
  // DoorbellBinder; writes are exits then, and ring() goes there all the same.
  Result<void> lead_to(uint16_t queue, int event_fd);

 private:
  struct Bell {
    UniqueFd own;
    int elsewhere = -1;
  };
  int target(uint16_t queue) const;
  Doorbell place_of(uint16_t queue) const;

  DoorbellBinder& binder_;
  const uint64_t first_, step_;
  std::vector<Bell> bells_;
  uint64_t bar_address_ = 0;
  bool bound_ = false;  // at bar_address_
};

}  // namespace snug
