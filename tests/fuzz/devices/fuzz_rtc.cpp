// The clock under any sequence of register accesses and any host time. An operation is one byte: bit 7 clear
// reads the register it names, set writes the next byte there; 0x0c and 0x0d, read-only anyway, set (8 bytes)
// or advance (4 bytes, microseconds) the host's clock instead when written.
#include "devices/legacy/rtc.h"
#include "tests/fuzz/devices/input.h"

namespace snug::fuzz {
namespace {

class Harness {
 public:
  void run(Input& input) {
    while (!input.empty()) step(input);
    check_time();
  }

 private:
  uint8_t get(uint8_t index) {
    select(index);
    std::byte value{};
    rtc_.read(1, {&value, 1});
    return std::to_integer<uint8_t>(value);
  }
  void put(uint8_t index, uint8_t value) {
    select(index);
    const auto byte = std::byte{value};
    rtc_.write(1, {&byte, 1});
  }
  void select(uint8_t index) {
    const auto byte = std::byte{index};
    rtc_.write(0, {&byte, 1});
  }

  void step(Input& input) {
    const uint8_t op = input.take8();
    const uint8_t index = op & 0x7f;
    if ((op & 0x80) == 0) {
      get(index);
    } else if (index == 0x0c) {
      now_ = static_cast<int64_t>(input.take(8));
    } else if (index == 0x0d) {
      int64_t later = 0;
      if (!__builtin_add_overflow(now_, static_cast<int64_t>(input.take(4)) * 1000, &later)) now_ = later;
    } else {
      put(index, input.take8());
    }
  }

  // A running clock shows a date, in whatever format it was told to.
  void check_time() {
    put(0x0a, 0x26);
    put(0x0b, get(0x0b) & 0x7f);
    const bool binary = (get(0x0b) & 0x04) != 0;
    const auto in_range = [&](uint8_t raw, unsigned lowest, unsigned highest) {
      const unsigned value = binary ? raw : (raw >> 4u) * 10 + (raw & 15u);
      FUZZ_CHECK(binary || (raw & 15) <= 9);
      FUZZ_CHECK(value >= lowest && value <= highest);
    };
    in_range(get(0x00), 0, 59);
    in_range(get(0x02), 0, 59);
    const uint8_t hour = get(0x04);
    if ((get(0x0b) & 0x02) != 0) {
      in_range(hour, 0, 23);
    } else {
      in_range(hour & 0x7f, 1, 12);
    }
    in_range(get(0x06), 1, 7);
    in_range(get(0x07), 1, 31);
    in_range(get(0x08), 1, 12);
    in_range(get(0x09), 0, 99);
    in_range(get(0x32), 0, 99);
    FUZZ_CHECK(get(0x0c) == 0);
    FUZZ_CHECK(get(0x0d) == 0x80);
  }

  int64_t now_ = 1'709'210'096'000'000'000;
  Rtc rtc_{
      [this] { return std::chrono::sys_time<std::chrono::nanoseconds>(std::chrono::nanoseconds(now_)); }};
};

}  // namespace
}  // namespace snug::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  snug::fuzz::Input input(data, size);
  snug::fuzz::Harness().run(input);
  return 0;
}
