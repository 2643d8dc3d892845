// The table of interrupt routes of a VM (KVM_SET_GSI_ROUTING): the IOAPIC's pins, and messages for GSIs
// behind them. KVM has no call for a single entry.
#pragma once

#include <cstdint>
#include <map>

#include "vmm/base/result.h"
#include "vmm/core/interrupt.h"

namespace snug::kvm {

// Replaces the whole table. Nothing is routed to the legacy PIC: these machines have none (hardware-reduced
// ACPI), and KVM's own default would raise vectors that a guest never set up. Any thread.
Result<void> set_gsi_routing(int vm_fd, const std::map<uint32_t, MsiMessage>& messages);

}  // namespace snug::kvm
