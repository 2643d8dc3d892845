#include "devices/legacy/pvpanic.h"

namespace snug {
namespace {

constexpr uint8_t kPanicked = 0x01;
constexpr uint8_t kCrashLoaded = 0x02;

}  // namespace

// The events the device knows; a driver sends no others.
uint8_t Pvpanic::read_byte(uint64_t) { return kPanicked | kCrashLoaded; }

void Pvpanic::write_byte(uint64_t, uint8_t value) {
  if ((value & kPanicked) != 0) lifecycle_.guest_event(GuestEvent::kPanic);
  if ((value & kCrashLoaded) != 0) lifecycle_.guest_event(GuestEvent::kCrashLoaded);
}

}  // namespace snug
