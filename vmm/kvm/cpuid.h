// What CPU a guest sees: everything this host's KVM supports, with the guest's own topology put in.
// Intel SDM vol. 2A CPUID; AMD APM vol. 3 appendix E; Linux Documentation/virt/kvm/x86/cpuid.rst.
// No KVM ioctls in the pure part, so that it can be tested with made-up hosts. Any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/kvm/uapi.h"

namespace snug::kvm {

class Kvm;

struct CpuTopology {
  uint32_t cpus = 1;     // one package, one thread per core; APIC id = index
  uint32_t tsc_khz = 0;  // 0: not known, timing leaves left out
  bool tsc_deadline = false;
};

// KVM_GET_SUPPORTED_CPUID. Errors: what KVM says.
Result<std::vector<kvm_cpuid_entry2>> supported_cpuid(const Kvm& kvm);

// The table for the vCPU with APIC id `apic_id` (< topology.cpus).
std::vector<kvm_cpuid_entry2> guest_cpuid(std::span<const kvm_cpuid_entry2> supported,
                                          const CpuTopology& topology, uint32_t apic_id);

// The first entry of `wanted` that `here` has not got, or has with other values; nullptr: there is none.
// Leaves that tell the counter's frequency are of no account: hosts measure it anew at each boot.
const kvm_cpuid_entry2* first_difference(std::span<const kvm_cpuid_entry2> wanted,
                                         std::span<const kvm_cpuid_entry2> here);

// What all guests of this host have in common. Errors: as of supported_cpuid().
Result<std::vector<kvm_cpuid_entry2>> host_cpuid(const Kvm& kvm);

// How many bits a physical address of the guest has (leaf 0x80000008); 36 when that is missing.
uint32_t physical_bits(std::span<const kvm_cpuid_entry2> entries);

// "GenuineIntel", "AuthenticAMD", ...; "" when leaf 0 is missing.
std::string cpuid_vendor(std::span<const kvm_cpuid_entry2> entries);

}  // namespace snug::kvm
