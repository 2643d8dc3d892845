#include "vmm/kvm/gsi_routing.h"

#include <sys/ioctl.h>

#include <vector>

#include "vmm/core/address_map.h"
#include "vmm/kvm/uapi.h"

namespace snug::kvm {
namespace {

kvm_irq_routing_entry ioapic_entry(uint32_t pin) {
  kvm_irq_routing_entry entry{};
  entry.gsi = pin;
  entry.type = KVM_IRQ_ROUTING_IRQCHIP;
  entry.u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
  entry.u.irqchip.pin = pin;
  return entry;
}

kvm_irq_routing_entry msi_entry(uint32_t gsi, const MsiMessage& message) {
  kvm_irq_routing_entry entry{};
  entry.gsi = gsi;
  entry.type = KVM_IRQ_ROUTING_MSI;
  entry.u.msi.address_lo = static_cast<uint32_t>(message.address);
  entry.u.msi.address_hi = static_cast<uint32_t>(message.address >> 32);
  entry.u.msi.data = message.data;
  return entry;
}

}  // namespace

Result<void> set_gsi_routing(int vm_fd, const std::map<uint32_t, MsiMessage>& messages) {
  const size_t count = map::kIoapicPins + messages.size();
  // kvm_irq_routing ends in a flexible array: room for it in units of entries.
  static_assert(sizeof(kvm_irq_routing) <= sizeof(kvm_irq_routing_entry));
  std::vector<kvm_irq_routing_entry> buffer(count + 1);
  auto* table = reinterpret_cast<kvm_irq_routing*>(buffer.data());
  table->nr = static_cast<uint32_t>(count);
  uint32_t next = 0;
  for (uint32_t pin = 0; pin < map::kIoapicPins; ++pin) table->entries[next++] = ioapic_entry(pin);
  for (const auto& [vector_gsi, vector_message] : messages)
    table->entries[next++] = msi_entry(vector_gsi, vector_message);
  if (::ioctl(vm_fd, KVM_SET_GSI_ROUTING, table) != 0) return fail_errno(errno, "KVM_SET_GSI_ROUTING");
  return {};
}

}  // namespace snug::kvm
