#include "tests/fuzz/devices/ring_harness.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  snug::fuzz::Input input(data, size);
  snug::fuzz::RingHarness(/*packed=*/true).run(input);
  return 0;
}
