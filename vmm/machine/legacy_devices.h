// The devices of a PC that lie on ports: serial port, keyboard controller (for its reset), clock, power
// management, and those through which a guest says how it fares.
//
// Owner: the machine. Thread: set up on the event loop's, then as each device says.
#pragma once

#include <memory>

#include "devices/acpi/power.h"
#include "devices/legacy/debug_exit.h"
#include "devices/legacy/i8042.h"
#include "devices/legacy/pvpanic.h"
#include "devices/legacy/rtc.h"
#include "devices/legacy/serial.h"
#include "vmm/base/result.h"
#include "vmm/base/synced.h"
#include "vmm/core/bus.h"
#include "vmm/core/lifecycle.h"
#include "vmm/core/state.h"
#include "vmm/kvm/vm.h"

namespace snug {

struct LegacyDevices {
  // Puts them on `ports`. All arguments outlive this. Errors: two at one place; KVM takes no coalesced
  // writes.
  static Result<std::unique_ptr<LegacyDevices>> create(kvm::Vm& vm, Bus& ports, SerialOutput& console,
                                                       LifecycleSink& machine);

  // A section of its own for each.
  void save(StateWriter& state);
  Result<void> restore(StateReader& state);

  LegacyDevices(kvm::Vm& vm, SerialOutput& console, LifecycleSink& machine);

  std::unique_ptr<IrqLine> serial_irq;
  std::unique_ptr<IrqLine> acpi_irq;
  Synced<Serial> serial;
  Synced<I8042> i8042;
  Synced<Rtc> rtc;
  Synced<PostCode> post_code;
  Synced<DebugExit> debug_exit;
  Synced<GuestStatus> guest_status;
  Synced<Pvpanic> pvpanic;
  Synced<AcpiPower> power;
};

}  // namespace snug
