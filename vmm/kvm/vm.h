// One virtual machine (KVM "VM ioctls"): memory slots, the in-kernel interrupt chip, doorbells.
//
// Thread: set-up on one thread; irq lines, MSIs, doorbells, pages and routes afterwards from any. Must
// outlive its vCPUs, lines and vectors.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/doorbell.h"
#include "vmm/core/guest_memory.h"
#include "vmm/core/interrupt.h"
#include "vmm/core/page_binder.h"
#include "vmm/kvm/kvm.h"

namespace snug::kvm {

class Vm final : public DoorbellBinder, public MsiSink, public PageBinder {
 public:
  // A VM with an in-kernel interrupt chip (IOAPIC and local APICs; the PIC is connected to nothing) and no
  // memory.
  static Result<std::unique_ptr<Vm>> create(const Kvm& kvm);

  // Gives the guest its RAM, and the files that are memory beside it, a slot for each. The memory must
  // outlive the VM.
  Result<void> add_memory(const GuestMemory& memory);
  // One more slot. `host` must stay mapped as long as the VM lives. Read-only slots turn guest writes into
  // MMIO exits. gpa, size: multiples of 4 KiB.
  enum class SlotAccess { kReadWrite, kReadOnly };
  Result<void> add_slot(uint64_t gpa, uint64_t size, std::byte* host, SlotAccess access);

  // Notes from now on which pages of RAM the guest writes to, or no more (KVM_MEM_LOG_DIRTY_PAGES).
  Result<void> log_dirty_pages(bool log);
  // Adds those since then, or since the last time, to `bits`, of all RAM (vmm/core/dirty_log.h).
  Result<void> take_dirty_pages(std::span<uint64_t> bits);

  // Lets KVM keep writes that lie within these addresses in the ring of coalesced writes
  // (coalesced_writes.h). Nothing happens where KVM cannot: each write is an exit then.
  Result<void> coalesce_writes(AddressSpace space, uint64_t address, uint32_t size);

  // An input of the IOAPIC. `gsi` < map::kIoapicPins.
  std::unique_ptr<IrqLine> irq_line(uint32_t gsi);

  // MsiSink: KVM_SIGNAL_MSI. A message that no local APIC takes is lost, as on hardware.
  void signal(const MsiMessage& message) override;

  // DoorbellBinder: ioeventfd.
  Result<void> bind(const Doorbell& doorbell, int event_fd) override;
  void unbind(const Doorbell& doorbell, int event_fd) override;

  // PageBinder: read-only memory slots, coalesced writes.
  Result<void> show(uint64_t gpa, std::span<const std::byte> pages) override;
  void hide(uint64_t gpa) override;
  Result<void> defer_writes(uint64_t gpa, uint32_t size) override {
    return coalesce_writes(AddressSpace::kMmio, gpa, size);
  }

  int fd() const { return fd_.get(); }
  const Kvm& kvm() const { return kvm_; }

 private:
  explicit Vm(const Kvm& kvm) : kvm_(kvm) {}
  Result<void> set_slot(uint32_t slot, uint64_t gpa, uint64_t size, const std::byte* host, uint32_t flags);
  Result<void> set_doorbell(const Doorbell& doorbell, int event_fd, uint32_t flags);

  const Kvm& kvm_;
  UniqueFd fd_;
  std::mutex slots_mutex_;  // guards what follows
  uint32_t next_slot_ = 0;
  struct RamSlot {
    uint32_t slot;
    GuestMemory::Region region;
  };
  std::vector<RamSlot> ram_;
  std::vector<uint32_t> free_slots_;
  std::map<uint64_t, uint32_t> shown_;  // gpa: slot
};

}  // namespace snug::kvm
