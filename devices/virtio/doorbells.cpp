#include "devices/virtio/doorbells.h"

#include <unistd.h>

namespace snug {
namespace {

void add_one(int event_fd) {
  const uint64_t one = 1;
  (void)!::write(event_fd, &one, sizeof one);
}

}  // namespace

Result<void> VirtioDoorbells::add() {
  bells_.push_back({.own = SNUG_TRY(make_eventfd())});
  return {};
}

int VirtioDoorbells::target(uint16_t queue) const {
  return bells_[queue].elsewhere >= 0 ? bells_[queue].elsewhere : fd(queue);
}

void VirtioDoorbells::ring(uint16_t queue) const { add_one(target(queue)); }

void VirtioDoorbells::ring_own(uint16_t queue) const { add_one(fd(queue)); }

Doorbell VirtioDoorbells::place_of(uint16_t queue) const {
  return {AddressSpace::kMmio, bar_address_ + first_ + queue * step_, 0, std::nullopt};
}

void VirtioDoorbells::move(uint64_t bar_address) {
  unbind();
  bar_address_ = bar_address;
}

Result<void> VirtioDoorbells::bind() {
  if (bound_ || bar_address_ == 0) return {};
  for (uint16_t i = 0; i < bells_.size(); ++i) {
    if (auto bound = binder_.bind(place_of(i), target(i)); !bound) {
      while (i-- > 0) binder_.unbind(place_of(i), target(i));
      return bound;
    }
  }
  bound_ = true;
  return {};
}

void VirtioDoorbells::unbind() {
  if (!bound_) return;
  for (uint16_t i = 0; i < bells_.size(); ++i) binder_.unbind(place_of(i), target(i));
  bound_ = false;
}

Result<void> VirtioDoorbells::lead_to(uint16_t queue, int event_fd) {
  if (bound_) binder_.unbind(place_of(queue), target(queue));
  bells_[queue].elsewhere = event_fd;
  return bound_ ? binder_.bind(place_of(queue), target(queue)) : Result<void>{};
}

}  // namespace snug
