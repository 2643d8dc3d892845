// Whether this KVM runs a guest's kernel mode on the CPU or emulates it instruction by instruction (a
// software KVM for paravirtual guests does): Linux does not boot on the latter.
#pragma once

#include <cstdint>

#include "vmm/base/result.h"
#include "vmm/kvm/kvm.h"

namespace snug::kvm {

enum class KernelMode { kNative, kEmulated };

struct KernelModeProbe {
  KernelMode mode;
  double ns_per_pass;  // best of several tries, one pass of a two-instruction loop at CPL 0
};

// Times a short CPL 0 loop in a throw-away VM; about a millisecond. Errors: the VM could not be made.
Result<KernelModeProbe> probe_kernel_mode(const Kvm& kvm);

}  // namespace snug::kvm
