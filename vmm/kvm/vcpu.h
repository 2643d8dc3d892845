// One virtual CPU (KVM "vCPU ioctls").
//
// Thread: set-up on any one thread, then run() and the register calls on the vCPU's own thread only;
// request_exit() from any thread. The VM must outlive it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/mapping.h"
#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/cpu_state.h"
#include "vmm/kvm/exit.h"
#include "vmm/kvm/uapi.h"
#include "vmm/kvm/vm.h"

namespace snug::kvm {

class Vcpu {
 public:
  // `id`: index and APIC id. vCPU 0 starts running, all others wait for INIT and SIPI.
  static Result<std::unique_ptr<Vcpu>> create(const Vm& vm, uint32_t id);

  Result<void> set_cpuid(std::span<const kvm_cpuid_entry2> entries);
  // What was set last.
  std::span<const kvm_cpuid_entry2> cpuid() const { return cpuid_; }
  // The MSRs that firmware would set: fast strings, memory type write-back. Those unknown here are skipped.
  Result<void> set_boot_msrs();
  Result<void> set_state(const CpuState& state);
  // Switches the local APIC on by software, for guests that start without firmware and take interrupts at
  // once.
  Result<void> enable_local_apic();

  // Enters the guest. Everything the guest can cause is an Exit; a Result error never happens for a guest's
  // sake alone.
  Exit run();
  // KVM's number for why the last run() returned (for statistics); meaningless after InterruptedExit.
  uint32_t last_reason() const { return run_area().exit_reason; }

  // Makes run() return at once, now or the next time it is entered: no wake-up is lost when this is called
  // before the thread is signalled. clear_exit_request() takes it back; vCPU thread.
  void request_exit();
  void clear_exit_request();
  bool exit_requested() const { return run_area().immediate_exit != 0; }

  // Finishes the access that the last exit was about (KVM completes it on entry) without running the guest.
  void complete_access();

  // Before the first run() after a pause (KVM_KVMCLOCK_CTRL): the guest's watchdogs take the time that is
  // missing for what it is. Nothing happens where the guest does not use kvm-clock. Any thread.
  void forgive_pause();

  // Registers, control registers, segments: several lines for a report. "" when they cannot be read.
  std::string describe_registers() const;
  // The guest-virtual address of the next instruction.
  std::optional<uint64_t> instruction_pointer() const;
  // KVM_TRANSLATE: guest-physical address of a guest-virtual one.
  std::optional<uint64_t> translate(uint64_t guest_virtual) const;
  // kHz, 0 when unknown.
  uint32_t tsc_khz() const;

  // The VM's ring of coalesced writes, the same for all its vCPUs; nullptr where KVM has none. Lives as long
  // as this vCPU.
  kvm_coalesced_mmio_ring* coalesced_ring() const { return coalesced_ring_; }

  uint32_t id() const { return id_; }
  int fd() const { return fd_.get(); }

 private:
  Vcpu(uint32_t id, UniqueFd fd, Mapping run) : id_(id), fd_(std::move(fd)), run_(std::move(run)) {}
  kvm_run& run_area() const { return *reinterpret_cast<kvm_run*>(run_.data()); }
  Exit decode_exit();
  FailureExit decode_internal_error() const;

  uint32_t id_;
  UniqueFd fd_;
  Mapping run_;
  std::vector<kvm_cpuid_entry2> cpuid_;
  kvm_coalesced_mmio_ring* coalesced_ring_ = nullptr;  // in run_
};

}  // namespace snug::kvm
