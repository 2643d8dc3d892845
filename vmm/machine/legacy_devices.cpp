#include "vmm/machine/legacy_devices.h"

#include <chrono>

#include "vmm/core/address_map.h"

namespace snug {

LegacyDevices::LegacyDevices(kvm::Vm& vm, SerialOutput& console, LifecycleSink& machine)
    : serial_irq(vm.irq_line(map::kGsiSerial)),
      acpi_irq(vm.irq_line(map::kGsiAcpi)),
      serial(*serial_irq, console),
      i8042(machine),
      rtc(std::chrono::system_clock::now),
      debug_exit(machine),
      pvpanic(machine),
      power(*acpi_irq, machine) {}

Result<std::unique_ptr<LegacyDevices>> LegacyDevices::create(kvm::Vm& vm, Bus& ports, SerialOutput& console,
                                                             LifecycleSink& machine) {
  auto devices = std::make_unique<LegacyDevices>(vm, console, machine);
  SNUG_TRY(ports.add({map::kPortSerial, 8}, "serial", devices->serial));
  SNUG_TRY(ports.add({map::kPortI8042, 5}, "i8042", devices->i8042));
  SNUG_TRY(ports.add({map::kPortRtc, 2}, "rtc", devices->rtc));
  SNUG_TRY(ports.add({map::kPortPostCode, 1}, "post code", devices->post_code));
  SNUG_TRY(ports.add({map::kPortDebugExit, 4}, "debug exit", devices->debug_exit));
  SNUG_TRY(ports.add({map::kPortGuestStatus, 1}, "guest status", devices->guest_status));
  SNUG_TRY(ports.add({map::kPortPvpanic, 1}, "pvpanic", devices->pvpanic));
  SNUG_TRY(ports.add({map::kPortAcpi, 16}, "acpi", devices->power));
  // An index register and a line setting: they only matter to what the guest does next. (Not the serial
  // port's FIFO control, after which waiting input may come in; for its data see
  // Machine::keep_printing_back().)
  SNUG_TRY(vm.coalesce_writes(AddressSpace::kPort, map::kPortRtc, 1));
  SNUG_TRY(vm.coalesce_writes(AddressSpace::kPort, map::kPortSerial + 3, 1));  // line control
  return devices;
}

namespace {

constexpr uint16_t kVersion = 1;

// Each device with the name of its section.
template <class Devices, class Each>
void for_each_with_state(Devices& devices, Each each) {
  each("serial", devices.serial);
  each("i8042", devices.i8042);
  each("rtc", devices.rtc);
  each("post-code", devices.post_code);
  each("guest-status", devices.guest_status);
  each("pvpanic", devices.pvpanic);
  each("acpi", devices.power);
}

}  // namespace

void LegacyDevices::save(StateWriter& state) {
  for_each_with_state(
      *this, [&](const char* name, auto& device) { device.lock()->save(state.section(name, kVersion)); });
}

Result<void> LegacyDevices::restore(StateReader& state) {
  Result<void> restored;
  for_each_with_state(*this, [&](const char* name, auto& device) {
    if (!restored) return;
    auto section = state.section(name, kVersion);
    if (section) device.lock()->restore(*section);
    if (!section)
      restored = tl::unexpected(std::move(section.error()));
    else
      restored = section->finish();
  });
  return restored;
}

}  // namespace snug
