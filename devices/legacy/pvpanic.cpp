#include "devices/legacy/pvpanic.h"

namespace snug {
namespace {

constexpr uint8_t kPanicked = 0x01;
constexpr uint8_t kCrashLoaded = 0x02;

}  // namespace

// The events the device knows; a driver sends no others.
uint8_t Pvpanic::read_byte(uint64_t) {
  has_driver_ = true;
  return kPanicked | kCrashLoaded;
}

// Each event once for each boot: a guest that repeats it has nothing new to say.
void Pvpanic::write_byte(uint64_t, uint8_t value) {
  const unsigned fresh = value & ~unsigned{reported_};
  reported_ |= value & (kPanicked | kCrashLoaded);
  if ((fresh & kPanicked) != 0) lifecycle_.guest_event(GuestEvent::kPanic);
  if ((fresh & kCrashLoaded) != 0) lifecycle_.guest_event(GuestEvent::kCrashLoaded);
}

}  // namespace snug
