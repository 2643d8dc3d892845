// The balloon under a driver without manners: virtio_input.h's steps, and the host's wishes in between.
#include "devices/virtio/balloon/balloon.h"
#include "tests/fuzz/devices/virtio_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace snug;
  fuzz::Input input(data, size);
  VirtioBalloon balloon({.target = kMiB, .on_size = nullptr, .on_stats = nullptr});
  fuzz::VirtioHarness driver(balloon);
  while (!input.empty()) {
    const uint8_t op = input.take8();
    if (op == 0xff) {
      balloon.set_target(input.take(5));
    } else if (op == 0xfe) {
      (void)balloon.refresh_stats();
    } else {
      driver.step(op, input);
    }
  }
  driver.finish();
  return 0;
}
