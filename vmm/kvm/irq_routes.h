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

class IrqRoutes {
 public:
  // One message-signalled vector. While it has no message it is masked: writes to its eventfd raise nothing.
  class Vector {
   public:
    ~Vector();
    // Writing 1 to this descriptor raises the interrupt. Owned by the vector.
    int event_fd() const { return event_fd_.get(); }
    // Routes the vector to a message and connects it.
    Result<void> set(const MsiMessage& message);
    // Disconnects it; counts written meanwhile stay in the eventfd (the owner reads them as "pending").
    void mask();

   private:
    friend IrqRoutes;
    Vector(IrqRoutes& routes, uint32_t gsi, UniqueFd event_fd)
        : routes_(routes), gsi_(gsi), event_fd_(std::move(event_fd)) {}
    Result<void> connect(uint32_t flags);
    IrqRoutes& routes_;
    uint32_t gsi_;
    UniqueFd event_fd_;
    bool connected_ = false;
  };

  explicit IrqRoutes(Vm& vm) : vm_(vm) {}

  // A new, masked vector. Errors: no descriptor or GSI left.
  Result<std::unique_ptr<Vector>> vector();

 private:
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
