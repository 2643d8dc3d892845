#include "vmm/kvm/vm.h"

#include <sys/ioctl.h>

#include "vmm/core/address_map.h"
#include "vmm/kvm/gsi_routing.h"
#include "vmm/kvm/uapi.h"

namespace snug::kvm {
namespace {

class GsiLine final : public IrqLine {
 public:
  GsiLine(int vm_fd, uint32_t gsi) : vm_fd_(vm_fd), gsi_(gsi) {}
  void set(bool asserted) override {
    if (asserted == asserted_) return;
    asserted_ = asserted;
    kvm_irq_level level{};
    level.irq = gsi_;
    level.level = asserted ? 1 : 0;
    // Cannot fail for a GSI of a chip that exists.
    ::ioctl(vm_fd_, KVM_IRQ_LINE, &level);
  }

 private:
  int vm_fd_;
  uint32_t gsi_;
  bool asserted_ = false;
};

uint32_t flags_of(Vm::SlotAccess access) {
  return access == Vm::SlotAccess::kReadOnly ? KVM_MEM_READONLY : 0;
}

}  // namespace

Result<std::unique_ptr<Vm>> Vm::create(const Kvm& kvm) {
  std::unique_ptr<Vm> vm(new Vm(kvm));
  int fd;
  // A signal during the creation of a VM makes it fail with EINTR.
  do fd = ::ioctl(kvm.fd(), KVM_CREATE_VM, 0);
  while (fd < 0 && errno == EINTR);
  vm->fd_ = UniqueFd(fd);
  if (!vm->fd_) {
    if (errno == ENOMEM)
      return fail_with_hint("KVM_CREATE_VM: out of memory", "free some memory on the host");
    return fail_errno(errno, "KVM_CREATE_VM");
  }
  if (::ioctl(fd, KVM_SET_TSS_ADDR, map::kTssPages) != 0) return fail_errno(errno, "KVM_SET_TSS_ADDR");
  uint64_t identity = map::kIdentityMapPage;
  if (::ioctl(fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) != 0)
    return fail_errno(errno, "KVM_SET_IDENTITY_MAP_ADDR");
  if (::ioctl(fd, KVM_CREATE_IRQCHIP, 0) != 0) return fail_errno(errno, "KVM_CREATE_IRQCHIP");
  SNUG_TRY(set_gsi_routing(fd, {}));
  return vm;
}

Result<void> Vm::add_memory(const GuestMemory& memory) {
  for (const auto& region : memory.regions()) {
    ram_.push_back({next_slot_, region});
    SNUG_TRY(add_slot(region.gpa, region.size, region.host, SlotAccess::kReadWrite));
  }
  for (const auto& file : memory.files())
    SNUG_TRY(add_slot(
        file.gpa, file.size, file.host,
        file.access == GuestMemory::Access::kReadWrite ? SlotAccess::kReadWrite : SlotAccess::kReadOnly));
  return {};
}

Result<void> Vm::add_slot(uint64_t gpa, uint64_t size, std::byte* host, SlotAccess access) {
  const std::lock_guard lock(slots_mutex_);
  return set_slot(next_slot_++, gpa, size, host, flags_of(access));
}

Result<void> Vm::show(uint64_t gpa, std::span<const std::byte> pages) {
  const std::lock_guard lock(slots_mutex_);
  if (free_slots_.empty()) free_slots_.push_back(next_slot_++);
  const uint32_t slot = free_slots_.back();
  SNUG_TRY(set_slot(slot, gpa, pages.size(), pages.data(), KVM_MEM_READONLY));
  free_slots_.pop_back();
  shown_[gpa] = slot;
  return {};
}

void Vm::hide(uint64_t gpa) {
  const std::lock_guard lock(slots_mutex_);
  const auto shown = shown_.find(gpa);
  if (shown == shown_.end()) return;
  // A slot that exists can be removed: size 0.
  (void)set_slot(shown->second, gpa, 0, nullptr, KVM_MEM_READONLY);
  free_slots_.push_back(shown->second);
  shown_.erase(shown);
}

Result<void> Vm::set_slot(uint32_t slot, uint64_t gpa, uint64_t size, const std::byte* host, uint32_t flags) {
  kvm_userspace_memory_region region{};
  region.slot = slot;
  region.flags = flags;
  region.guest_phys_addr = gpa;
  region.memory_size = size;
  region.userspace_addr = reinterpret_cast<uint64_t>(host);
  if (::ioctl(fd_.get(), KVM_SET_USER_MEMORY_REGION, &region) != 0)
    return fail_errno(errno, "memory slot of {:#x} bytes at {:#x}", size, gpa);
  return {};
}

Result<void> Vm::log_dirty_pages(bool log) {
  const std::lock_guard lock(slots_mutex_);
  for (const RamSlot& ram : ram_)
    SNUG_TRY(set_slot(ram.slot, ram.region.gpa, ram.region.size, ram.region.host,
                      log ? KVM_MEM_LOG_DIRTY_PAGES : 0));
  return {};
}

Result<void> Vm::take_dirty_pages(std::span<uint64_t> bits) {
  std::vector<uint64_t> some;
  size_t word = 0;
  for (const RamSlot& ram : ram_) {
    // What is in front of RAM above the hole fills its last word.
    some.assign(dirty_words(ram.region.size), 0);
    kvm_dirty_log request{};
    request.slot = ram.slot;
    request.dirty_bitmap = some.data();
    if (::ioctl(fd_.get(), KVM_GET_DIRTY_LOG, &request) != 0) return fail_errno(errno, "KVM_GET_DIRTY_LOG");
    for (size_t i = 0; i < some.size(); ++i) bits[word + i] |= some[i];
    word += some.size();
  }
  return {};
}

Result<void> Vm::coalesce_writes(AddressSpace space, uint64_t address, uint32_t size) {
  if (!kvm_.coalesces_writes()) return {};
  kvm_coalesced_mmio_zone zone{};
  zone.addr = address;
  zone.size = size;
  zone.pio = space == AddressSpace::kPort ? 1 : 0;
  if (::ioctl(fd_.get(), KVM_REGISTER_COALESCED_MMIO, &zone) != 0)
    return fail_errno(errno, "coalesced writes at {:#x}", address);
  return {};
}

std::unique_ptr<IrqLine> Vm::irq_line(uint32_t gsi) { return std::make_unique<GsiLine>(fd_.get(), gsi); }

void Vm::signal(const MsiMessage& message) {
  kvm_msi msi{};
  msi.address_lo = static_cast<uint32_t>(message.address);
  msi.address_hi = static_cast<uint32_t>(message.address >> 32);
  msi.data = message.data;
  ::ioctl(fd_.get(), KVM_SIGNAL_MSI, &msi);
}

Result<void> Vm::set_doorbell(const Doorbell& doorbell, int event_fd, uint32_t flags) {
  kvm_ioeventfd request{};
  request.addr = doorbell.address;
  request.len = doorbell.width;
  request.fd = event_fd;
  request.flags = flags;
  if (doorbell.space == AddressSpace::kPort) request.flags |= KVM_IOEVENTFD_FLAG_PIO;
  if (doorbell.match) {
    request.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
    request.datamatch = *doorbell.match;
  }
  if (::ioctl(fd_.get(), KVM_IOEVENTFD, &request) != 0)
    return fail_errno(errno, "doorbell at {:#x}", doorbell.address);
  return {};
}

Result<void> Vm::bind(const Doorbell& doorbell, int event_fd) { return set_doorbell(doorbell, event_fd, 0); }

void Vm::unbind(const Doorbell& doorbell, int event_fd) {
  // Fails only when it was never bound.
  (void)set_doorbell(doorbell, event_fd, KVM_IOEVENTFD_FLAG_DEASSIGN);
}

}  // namespace snug::kvm
