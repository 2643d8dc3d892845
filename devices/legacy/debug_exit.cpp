#include "devices/legacy/debug_exit.h"

#include "vmm/base/endian.h"

namespace snug {

void DebugExit::read(uint64_t, std::span<std::byte> data) { store_le(data, 0); }

void DebugExit::write(uint64_t, std::span<const std::byte> data) {
  lifecycle_.guest_event(GuestEvent::kDebugExit, static_cast<uint32_t>(load_le(data)));
}

}  // namespace snug
