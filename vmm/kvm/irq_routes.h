// GSI routing and irqfds: message-signalled interrupts that are raised by writing an eventfd, with no code of
// ours in between (KVM_SET_GSI_ROUTING, KVM_IRQFD).
//
// Thread: any; one lock inside. The VM must outlive it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "vmm/base/result.h"
#include "vmm/base/synced.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/interrupt.h"
#include "vmm/kvm/vm.h"

namespace snug::kvm {

class IrqRoutes final : public MsiVectorSource {
 public:
  explicit IrqRoutes(Vm& vm) : vm_(vm) {}

  Result<std::unique_ptr<MsiVector>> vector() override;

 private:
  class Vector;

  // Hands the whole table to KVM: it has no call for a single entry.
  Result<void> update(uint32_t gsi, const MsiMessage* message);

  struct State {
    std::map<uint32_t, MsiMessage> messages;
    uint32_t next_gsi = 24;  // behind the IOAPIC's pins
  };
  Vm& vm_;
  Synced<State> state_;
};

}  // namespace snug::kvm
