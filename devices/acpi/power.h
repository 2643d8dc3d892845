// The registers of a hardware-reduced ACPI machine: sleep control and status (ACPI 6.5, 4.8.3.7), the reset
// register (4.8.3.6), and the event register that the generic event device's _EVT method reads (5.6.9).
//
// Registered at map::kPortAcpi.
// Owner: the machine, as Synced<AcpiPower>; irq and lifecycle must outlive it.
// Thread: registers on vCPU threads, press_power_button() on any, all with the lock held.
#pragma once

#include "devices/byte_registers.h"
#include "vmm/core/address_map.h"
#include "vmm/core/interrupt.h"
#include "vmm/core/lifecycle.h"

namespace snug {

class AcpiPower final : public ByteRegisters {
 public:
  static constexpr uint64_t kPorts = 16;

  AcpiPower(IrqLine& irq, LifecycleSink& lifecycle) : irq_(irq), lifecycle_(lifecycle) {}

  // Asks the guest to shut down. Pressing again before the guest has acknowledged changes nothing.
  void press_power_button();

  // The guest is another one from now on: map::kGenerationId holds other bytes.
  void announce_generation() { set_pending(static_cast<uint8_t>(pending_ | map::kAcpiEventGeneration)); }

  // For snapshots.
  void save(SectionWriter& out) const { out.number(pending_); }
  void restore(SectionReader& in) { set_pending(in.number<uint8_t>()); }

 private:
  uint8_t read_byte(uint64_t offset) override;
  void write_byte(uint64_t offset, uint8_t value) override;
  void set_pending(uint8_t events);

  IrqLine& irq_;
  LifecycleSink& lifecycle_;
  uint8_t pending_ = 0;  // the line is high while it isn't 0
};

}  // namespace snug
