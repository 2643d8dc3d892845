// The tap interface of a network interface of mode tap: one that exists, or descriptors that the caller of
// snug has opened.
//
// Thread: any, before the machine is built.
#pragma once

#include <string>
#include <vector>

#include "devices/virtio/net/backend.h"
#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/spec/spec.h"

struct ifreq;

namespace snug {

class Tap {
 public:
  // Errors: no such interface; this user may not use it; it was not made for several queues; a descriptor
  // that is no tap, or one without vnet headers; no vhost-net where it must be.
  static Result<Tap> open(const NetSpec& net);

  // They live as long as this.
  TapFiles files() const;
  // The interface's longest packet, bytes.
  uint32_t mtu() const { return mtu_; }

 private:
  Result<void> open_named(const std::string& name, uint32_t queues);
  Result<void> adopt(const std::vector<int>& numbers);
  Result<void> adopt_one(int number, ifreq& request);
  void ask_interface(const std::string& name);
  Result<void> open_vhost();

  std::vector<UniqueFd> taps_;
  std::vector<UniqueFd> vhost_;  // none, or as many
  uint64_t vhost_features_ = 0;
  uint32_t mtu_ = 0;
};

}  // namespace snug
