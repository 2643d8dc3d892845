// What a guest asks of its machine through a device: power-off, reset, "I panicked". Devices call it from
// vCPU threads with their lock held; it only posts, never blocks, never ends anything by itself.
#pragma once

#include <cstdint>

namespace snug {

enum class GuestEvent {
  kPowerOff,     // ACPI S5
  kReset,        // ACPI reset register, i8042 pulse
  kPanic,        // pvpanic: panicked
  kCrashLoaded,  // pvpanic: the guest's crash kernel takes over (information only)
  kDebugExit,    // value: the code the guest wrote to the debug exit port
};

class LifecycleSink {
 public:
  virtual ~LifecycleSink() = default;
  virtual void guest_event(GuestEvent event, uint32_t value = 0) = 0;
};

}  // namespace snug
