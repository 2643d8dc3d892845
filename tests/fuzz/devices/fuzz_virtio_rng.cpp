// The entropy device, behind its transport.
#include "devices/virtio/rng/rng.h"

#include "tests/fuzz/devices/virtio_guest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace snug;
  fuzz::Input input(data, size);
  VirtioRng device([](std::span<std::byte> out) { std::fill(out.begin(), out.end(), std::byte{7}); });
  fuzz::VirtioGuest guest(device, [] {});
  guest.bring_up(input.take(8), static_cast<uint16_t>(1u << input.take8() % 4));
  while (!input.empty()) guest.step(input);
  guest.settle();
  FUZZ_CHECK(guest.serves(0, {{0x30000, 4, true}}));
  FUZZ_CHECK(guest.memory().load<uint32_t>(0x30000) == 0x07070707u);
  return 0;
}
