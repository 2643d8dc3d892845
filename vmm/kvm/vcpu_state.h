// The vCPUs of a machine that stands still, as sections of its state ("vcpu0", "vcpu1", ...), and the VM's
// own part ("interrupts", "clock"): KVM's structures as its API has them (Documentation/virt/kvm/api.rst).
//
// Thread: one, while no vCPU runs.
#pragma once

#include <memory>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/core/state.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vm.h"

namespace snug::kvm {

// Errors: what KVM does not tell.
Result<void> save_vcpus(const Vm& vm, const std::vector<const Vcpu*>& vcpus, StateWriter& state);
// Into vCPUs that were just made, before they have run; they have all that a guest has but for its memory
// afterwards, and their clocks go on from where they were. Errors: a state that is none, or that this host's
// CPU or KVM cannot have.
Result<void> restore_vcpus(const Vm& vm, const std::vector<std::unique_ptr<Vcpu>>& vcpus, StateReader& state);

// The interrupt chips and the VM's clock (kvm-clock). Restored before vCPUs and devices.
Result<void> save_vm(const Vm& vm, StateWriter& state);
Result<void> restore_vm(const Vm& vm, StateReader& state);

}  // namespace snug::kvm
