// /dev/kvm: the system-wide half of KVM (Linux Documentation/virt/kvm/api.rst, "system ioctls").
// Only vmm/kvm makes KVM ioctls. Any thread.
#pragma once

#include <cstdint>
#include <string>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

namespace snug::kvm {

// Why /dev/kvm cannot be used, for `snug doctor` and for the one line of `snug run`.
enum class OpenFailure { kNone, kMissing, kNoPermission, kBusy, kWrongVersion, kMissingCapability, kOther };

class Kvm {
 public:
  // Opens /dev/kvm, checks the API version (12) and every capability that snug cannot do without. The error
  // says what to do about it. `failure`, when given, gets the kind.
  static Result<Kvm> open(const std::string& path = "/dev/kvm", OpenFailure* failure = nullptr);

  int fd() const { return fd_.get(); }
  // KVM_CHECK_EXTENSION on the system: 0 when unsupported.
  int capability(int number) const;
  // The most vCPUs one VM may have.
  uint32_t max_vcpus() const;
  // Whether the in-kernel local APIC has a TSC deadline timer, which guests need no calibration for.
  bool has_tsc_deadline() const;
  // Whether writes can be coalesced, those to ports too (Linux 5.0).
  bool coalesces_writes() const { return coalesces_writes_; }
  // Pages from the start of a vCPU's run area to the ring of coalesced writes.
  uint32_t coalesced_ring_page() const;
  // Bytes of the shared run area of each vCPU.
  size_t run_area_size() const { return run_area_size_; }

 private:
  UniqueFd fd_;
  size_t run_area_size_ = 0;
  // Known beforehand: a vCPU asks at each of its exits that writes to the console.
  bool coalesces_writes_ = false;
};

}  // namespace snug::kvm
