#include "devices/acpi/power.h"

#include "vmm/core/address_map.h"

namespace snug {
namespace {

constexpr uint64_t kSleepControl = map::kAcpiSleepControl - map::kPortAcpi;
constexpr uint64_t kSleepStatus = map::kAcpiSleepStatus - map::kPortAcpi;
constexpr uint64_t kReset = map::kAcpiReset - map::kPortAcpi;
constexpr uint64_t kEvents = map::kAcpiEvents - map::kPortAcpi;

// ACPI 6.5, 4.8.3.7, sleep control register.
constexpr unsigned kSleepTypeShift = 2;
constexpr uint8_t kSleepTypeMask = 0x07;
constexpr uint8_t kSleepEnable = 0x20;

}  // namespace

void AcpiPower::press_power_button() {
  set_pending(static_cast<uint8_t>(pending_ | map::kAcpiEventPowerButton));
}

uint8_t AcpiPower::read_byte(uint64_t offset) {
  switch (offset) {
    case kSleepControl:
      return 0;  // SLP_EN is write-only, SLP_TYP nobody asks for
    // WAK_STS: only S5 can be entered, from which nothing wakes up.
    case kSleepStatus:
      return 0;
    case kReset:
      return 0;
    case kEvents:
      return pending_;
    default:
      return 0xff;
  }
}

void AcpiPower::write_byte(uint64_t offset, uint8_t value) {
  switch (offset) {
    case kSleepControl:
      if ((value & kSleepEnable) != 0 &&
          ((value >> kSleepTypeShift) & kSleepTypeMask) == map::kAcpiSleepTypeS5)
        lifecycle_.guest_event(GuestEvent::kPowerOff);
      break;
    case kReset:
      if (value == map::kAcpiResetValue) lifecycle_.guest_event(GuestEvent::kReset);
      break;
    case kEvents:
      set_pending(static_cast<uint8_t>(pending_ & ~value));
      break;
    default:
      break;  // sleep status has only bits that are never set to clear
  }
}

void AcpiPower::set_pending(uint8_t events) {
  const bool was_high = pending_ != 0;
  pending_ = events;
  if ((events != 0) != was_high) irq_.set(events != 0);
}

}  // namespace snug
